"""Token ids of the data against the vocabulary of the model, before they are traced and can only become NaN."""

from __future__ import annotations

from typing import Any

import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.core.numerics import EMPTY_POSITION


def vocab_sizes(model: Any) -> dict[str, int]:
    """Number of ids that the model embeds, by the field of a batch: "tokens" and, if it reads one, "source".

    Empty for a model without a `config` that has `vocab_size`, such as a bare pytree of parameters.
    """
    config = getattr(model, "config", None)
    encoder, decoder = getattr(config, "encoder", None), getattr(config, "decoder", config)
    source = getattr(encoder, "vocab_size", getattr(config, "source_vocab_size", None))
    sizes = {"tokens": getattr(decoder, "vocab_size", None), "source": source}
    return {name: size for name, size in sizes.items() if size is not None}


def check_source(sizes: dict[str, int], source: Any) -> None:
    """Refuse a source with a larger vocabulary than the model, if ids that the model lacks occur in it.

    `source.tokens_by_field` has the `data.Tokens` of fields of its batches; a source without it is checked by batches.
    """
    for name, tokens in getattr(source, "tokens_by_field", {}).items():
        # The largest id is only looked for where it matters: that reads all ids, which may be a large file.
        if tokens.vocab_size > sizes.get(name, tokens.vocab_size):
            _check_below(name, sizes[name], tokens.largest_id)


def check_batch(sizes: dict[str, int], batch: Any) -> None:
    """Refuse a batch of NumPy arrays with token ids that the model lacks; padding may hold any number."""
    for name, size in sizes.items():
        ids = getattr(batch, name, None)
        is_known = isinstance(ids, np.ndarray) and np.issubdtype(ids.dtype, np.integer) and ids.size > 0
        if is_known and (ids.min() < 0 or ids.max() >= size):
            real = ids[_is_real(batch, name)]
            least = int(real.min(initial=0))
            fail_unless(least >= 0, f"{name}: expected token ids from 0, got {least}. Give padding the weight 0.")
            _check_below(name, size, int(real.max(initial=0)))


def wrong_target(sizes: dict[str, int], batch: Any) -> int | None:
    """A target with a weight that is no class, such as -100, in a batch of NumPy arrays; None if there is none."""
    targets, weights = getattr(batch, "targets", None), getattr(batch, "weights", None)
    if "tokens" not in sizes or not isinstance(targets, np.ndarray) or not np.issubdtype(targets.dtype, np.integer):
        return None
    counted = np.broadcast_to(True if weights is None else np.asarray(weights) != 0, targets.shape)
    wrong = targets[counted & ((targets < 0) | (targets >= sizes["tokens"]))]
    return int(wrong[0]) if wrong.size else None


def _is_real(batch: Any, name: str) -> np.ndarray:
    """Which ids of a field are no padding: those with a weight, and in a source those with a position."""
    ids = getattr(batch, name)
    field, padding = ("source_positions", EMPTY_POSITION) if name == "source" else ("weights", 0)
    marks = getattr(batch, field, None)
    return np.broadcast_to(True if marks is None else np.asarray(marks) != padding, ids.shape)


def _check_below(name: str, size: int, largest_id: int) -> None:
    fail_unless(
        largest_id < size,
        f"{name}: expected ids below {size}, the vocabulary of the model, got {largest_id}, so the vocabulary of the "
        f"data has at least {largest_id + 1} ids. Make the model for tokenizer.vocab_size ids, or encode the text with "
        "the tokenizer of the model.",
    )
