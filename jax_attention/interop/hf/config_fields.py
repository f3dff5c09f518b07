"""A Hugging Face config that is read field by field and can list the fields that nothing has read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

HARMLESS = {
    "_attn_implementation_autoset",
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classif_dropout",
    "classifier_dropout",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "eos_token_id",
    "finetuning_task",
    "force_bos_token_to_be_generated",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "init_std",
    "initializer_factor",
    "initializer_range",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "n_ctx",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "repetition_penalty",
    "return_dict",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Fields of Hugging Face configs that do not change what the model computes from its weights: they configure training
and generation.
"""

_REQUIRED = object()


class ConfigFields:
    """The fields of a config. `unread()` lists those that were not taken, not expected and are not harmless."""

    def __init__(self, values: Mapping[str, Any]):
        self.values, self._read = dict(values), set(HARMLESS)

    def take(self, name: str, default: Any = _REQUIRED) -> Any:
        """The value of a field, or its default where it is absent."""
        self._read.add(name)
        if name not in self.values and default is _REQUIRED:
            raise ValueError(f"config.json: expected the field {name!r}, got {', '.join(sorted(self.values))}.")
        return self.values.get(name, default)

    def take_first(self, names: Iterable[str], default: Any = _REQUIRED) -> Any:
        """The first value that is present and not null under several names: fields were renamed over the years."""
        names = tuple(names)
        self._read.update(names)
        present = (self.values[name] for name in names if self.values.get(name) is not None)
        value = next(present, default)
        if value is _REQUIRED:
            raise ValueError(f"config.json: expected one of the fields {', '.join(names)}, got none.")
        return value

    def without(self, *names: str) -> ConfigFields:
        """The same fields without some, which count as read."""
        self._read.update(names)
        other = ConfigFields({name: value for name, value in self.values.items() if name not in names})
        other._read = self._read
        return other

    def expect(self, name: str, *allowed: Any) -> None:
        """Check a field that may be absent and otherwise has to have one of these values: no other is implemented."""
        value = self.take(name, allowed[0])
        if value not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise ValueError(
                f"config.json: expected {name} = {choices}, which is all that this library has, got {value!r}."
            )

    def unread(self) -> list[str]:
        """Names of fields that nothing has read and that are not null."""
        return sorted(name for name, value in self.values.items() if name not in self._read and value is not None)
