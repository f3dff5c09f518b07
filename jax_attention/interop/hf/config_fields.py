"""A `config.json` that is read field by field and knows in the end what nobody has read."""

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
"""Fields of Hugging Face configs that do not change what the model computes from its weights: they are of training
and of generation.
"""

_ASK = object()


class Fields:
    """The fields of a config; `unread` are those that were neither taken, nor expected, nor harmless."""

    def __init__(self, values: Mapping[str, Any]):
        self.values, self._read = dict(values), set(HARMLESS)

    def take(self, name: str, default: Any = _ASK) -> Any:
        """The value of a field, or its default where it is absent."""
        self._read.add(name)
        if name not in self.values and default is _ASK:
            raise ValueError(f"config.json: expected the field {name!r}, got {', '.join(sorted(self.values))}.")
        return self.values.get(name, default)

    def first(self, names: Iterable[str], default: Any = _ASK) -> Any:
        """The value under the first of several names that is there and not null: fields were renamed over the years."""
        names = tuple(names)
        self._read.update(names)
        found = (self.values[name] for name in names if self.values.get(name) is not None)
        value = next(found, default)
        if value is _ASK:
            raise ValueError(f"config.json: expected one of the fields {', '.join(names)}, got none.")
        return value

    def without(self, *names: str) -> Fields:
        """The same fields but for some, which count as read."""
        self._read.update(names)
        other = Fields({name: value for name, value in self.values.items() if name not in names})
        other._read = self._read
        return other

    def expect(self, name: str, *allowed: Any) -> None:
        """A field that may be absent and has to have one of these values: we compute nothing else."""
        value = self.take(name, allowed[0])
        if value not in allowed:
            wanted = " or ".join(map(repr, allowed))
            raise ValueError(
                f"config.json: expected {name} = {wanted}, which is all that this library has, got {value!r}."
            )

    def unread(self) -> list[str]:
        """Fields that nobody asked for and that say something; null says nothing."""
        return sorted(name for name, value in self.values.items() if name not in self._read and value is not None)
