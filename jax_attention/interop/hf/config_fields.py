"""A Hugging Face config that is read field by field and can list the fields that nothing has read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jax_attention.core.text import list_names, quote
from jax_attention.interop.hf.field_kinds import check_field

_HARMLESS = """
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash
    _experts_implementation _flash_attn_2_enabled _name_or_path _num_labels architectures attn_implementation auto_map
    chunk_size_feed_forward classif_dropout classifier_dropout custom_pipelines dtype file_type finetuning_task
    force_bos_token_to_be_generated gradient_checkpointing gradient_checkpointing_kwargs id2label init_std
    initializer_factor initializer_range label2id max_sequence_length model_max_length model_type n_ctx name_or_path
    neftune_noise_alpha num_labels output_attentions output_hidden_states output_past prefix pretraining_tp
    problem_type return_dict task_specific_params tf_legacy_loss tokenizer_class tokenizer_padding_side torch_dtype
    torchscript transformers.js_config transformers_version trust_remote_code unsloth_fixed unsloth_version
    use_bfloat16 use_cache use_flash_attention_2 use_flash_attn vocab_file xla_device

    bos_token_id cls_token_id decoder_start_token_id eos_token_id eos_token_ids mask_token_id pad_token_id sep_token_id
    unk_token_id

    assistant_confidence_threshold assistant_early_exit assistant_lookbehind bad_words_ids begin_suppress_tokens
    cache_config cache_implementation compile_config constraints disable_compile diversity_penalty do_sample
    dola_layers early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff
    exponential_decay_length_penalty force_words_ids forced_bos_token_id forced_decoder_ids forced_eos_token_id
    generation_kwargs guidance_scale is_assistant length_penalty low_memory max_length max_matching_ngram_size
    max_new_tokens max_time min_length min_new_tokens min_p no_repeat_ngram_size num_assistant_tokens
    num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences output_logits output_scores
    penalty_alpha prefill_chunk_size prompt_lookup_num_tokens remove_invalid_values renormalize_logits
    repetition_penalty return_dict_in_generate return_legacy_cache sequence_bias stop_strings suppress_tokens
    target_lookbehind temperature token_healing top_k top_p typical_p watermarking_config
    """
HARMLESS = set(_HARMLESS.split())
"""Fields of Hugging Face configs that do not change what the model computes from its weights, whatever their value:
those of the library and of tools that write folders, ids of tokens, and settings of generation.
"""
NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False, True),
    "pruned_heads": ({},),
    "quantization_config": (None,),
    "tie_encoder_decoder": (False,),
}
"""Fields that any config may have, and the values with which they change nothing. Others are refused by name, except
where a family reads the field itself. `is_decoder` matters to families of encoders alone, which read it.
"""

_REQUIRED = object()


class ConfigFields:
    """The fields of a config, each checked when it is taken (`field_kinds.py` says what it may be).

    `unread()` lists those that were not taken, not expected and are not harmless. `file` is the name for messages.
    """

    def __init__(self, values: Mapping[str, Any], file: str = "config.json"):
        self.values, self.file, self._read = dict(values), file, set(HARMLESS)

    def take(self, name: str, default: Any = _REQUIRED) -> Any:
        """The value of a field, or its default where it is absent."""
        self._read.add(name)
        if name in self.values:
            return check_field(self.file, name, self.values[name])
        if default is _REQUIRED:
            raise ValueError(f"{self.file}: expected the field {name!r}, got {list_names(sorted(self.values))}.")
        return default

    def take_first(self, names: Iterable[str], default: Any = _REQUIRED) -> Any:
        """The first value that is present and not null under several names: fields were renamed over the years."""
        names = tuple(names)
        self._read.update(names)
        present = (name for name in names if self.values.get(name) is not None)
        name = next(present, None)
        if name is not None:
            return check_field(self.file, name, self.values[name])
        if default is _REQUIRED:
            raise ValueError(f"{self.file}: expected one of the fields {', '.join(names)}, got none.")
        return default

    def ignore(self, *names: str) -> None:
        """Count fields as read that may have any value: the model does not depend on them."""
        self._read.update(names)

    def without(self, *names: str) -> ConfigFields:
        """The same fields without some, which count as read."""
        self._read.update(names)
        other = ConfigFields({name: x for name, x in self.values.items() if name not in names}, self.file)
        other._read = self._read
        return other

    def expect(self, name: str, *allowed: Any) -> None:
        """Check a field that may be absent and otherwise has to have one of these values: no other is implemented."""
        self._read.add(name)
        value = self.values.get(name, allowed[0])
        if value not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise ValueError(
                f"{self.file}: expected {name} = {choices}, which is all that this library has, got {quote(value)}."
            )

    def take_equal(self, name: str, other: str, default: Any) -> Any:
        """The value of two fields that transformers keeps apart and this library does not."""
        value = self.take(name, default)
        if (second := self.take(other, value)) != value:
            raise ValueError(
                f"{self.file}: expected {name} and {other} to be equal, as this library has one number for both, got "
                f"{value} and {second}."
            )
        return value

    def unread(self) -> list[str]:
        """Names of fields that nothing has read and that are not null."""
        return sorted(name for name, value in self.values.items() if name not in self._read and value is not None)
