"""A Hugging Face config that is read field by field and can list the fields that nothing has read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jax_attention.core.text import list_names, quote
from jax_attention.interop.hf.field_kinds import check_field

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
