"""Checks of weights and labels, made before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import describe_array, fail_unless

ROW_SLACK = 2.0**-7
"""Tolerance of a row sum above 1. It is the epsilon of bfloat16: weights rounded to bfloat16 sum to 1 within it."""

LAYOUTS = {2: "[T, S]", 3: "[N, T, S]", 4: "[L, N, T, S]"}


def check_weights(weights: object, ranks: tuple[int, ...]) -> np.ndarray:
    """Check attention weights (finite, not negative, one of `ranks`) and return them as a NumPy float64 array."""
    layout = " or ".join(LAYOUTS[rank] for rank in ranks)
    fail_unless(
        not isinstance(weights, jax.core.Tracer),
        f"weights: expected an array of numbers {layout}, got a traced {describe_array(weights)}. Pictures are drawn "
        "outside of jit, grad and vmap: return the weights, then draw them.",
        TypeError,
    )
    array = weights if hasattr(weights, "dtype") else _from_lists(weights, layout)
    real = jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
    fail_unless(
        real,
        f"weights: expected real numbers {layout}, got {describe_array(array)}. Cast a mask: mask.astype(float).",
        TypeError,
    )
    fail_unless(array.ndim in ranks, f"weights: expected {layout}, got {describe_array(array)}. {_cure(array, ranks)}")
    fail_unless(
        array.size > 0, f"weights: expected at least one query and one key in {layout}, got {describe_array(array)}."
    )
    array = np.asarray(array).astype(np.float64)
    _check_numbers(array)
    return array


def check_row_sums(weights: np.ndarray, why: str) -> None:
    """Check that no row sums to more than 1; it may sum to less, with a sink or an empty row."""
    sums = weights.sum(axis=-1)
    worst = np.unravel_index(np.argmax(sums), sums.shape)
    fail_unless(
        bool(sums[worst] <= 1 + ROW_SLACK),
        f"weights: expected rows that sum to at most 1, got {sums[worst]:.6g} in row {_show_index(worst)}. {why} Scale "
        "them first: weights / weights.sum(-1, keepdims=True).",
    )


def check_labels(name: str, labels: object, count: int, axis: str) -> tuple[str, ...] | None:
    """Check labels: one string per row (`axis` T) or column (S) of the weights; None stays None."""
    if labels is None:
        return None
    fail_unless(
        not isinstance(labels, str),
        f"{name}: expected a sequence of {count} strings, got the one string {labels!r}. Cut it first: list(text) for "
        "characters, text.split() for words.",
        TypeError,
    )
    fail_unless(
        isinstance(labels, (Sequence, np.ndarray)),
        f"{name}: expected a sequence of {count} strings, got {describe_array(labels)}.",
        TypeError,
    )
    for i, label in enumerate(labels):
        fail_unless(
            isinstance(label, str),
            f"{name}: expected strings, got {describe_array(label)} at index {i}. Decode token ids one by one: "
            "[tokenizer.decode([i]) for i in ids].",
            TypeError,
        )
    fail_unless(
        len(labels) == count,
        f"{name}: expected {count} labels, one for each of the {axis} = {count} "
        f"{'queries (rows)' if axis == 'T' else 'keys (columns)'} of weights, got {len(labels)}.",
    )
    return tuple(map(str, labels))


def check_both_labels(
    names: tuple[str, str], queries: object, keys: object, shape: tuple[int, ...]
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Check labels of rows and columns; without key labels those of the queries are used, as in self-attention."""
    rows, columns = shape[-2:]
    queries = check_labels(names[0], queries, rows, "T")
    if keys is None and queries is not None and rows != columns:
        raise ValueError(
            f"{names[1]}: expected {columns} labels, as weights have {rows} queries and {columns} keys, got None. "
            "Only for T = S can the labels of the queries be used for the keys."
        )
    return queries, queries if keys is None else check_labels(names[1], keys, columns, "S")


def check_layers(layers: object, count: int) -> tuple[str, ...]:
    """Check the names of the layers; 0, 1, 2, … if None."""
    names = range(count) if layers is None else layers
    fail_unless(
        isinstance(names, (Sequence, np.ndarray)) and not isinstance(names, str) and len(names) == count,
        f"layers: expected {count} numbers or names, one for each layer of weights, got {layers!r}.",
    )
    return tuple(map(str, names))


def check_title(title: object) -> str:
    """Check the title; an empty string if None."""
    fail_unless(title is None or isinstance(title, str), f"title: expected a string or None, got {title!r}.", TypeError)
    return title or ""


def _from_lists(weights: object, layout: str) -> np.ndarray:
    """Nested lists as an array."""
    fail_unless(
        isinstance(weights, (list, tuple)),
        f"weights: expected an array {layout}, got {describe_array(weights)}. A picture takes weights, not a model: "
        "call attention_weights(...), or ask the model to capture them.",
        TypeError,
    )
    try:
        return np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"weights: expected an array {layout}, got lists that are no array: {error}.") from None


def _check_numbers(array: np.ndarray) -> None:
    for wrong, expected, cure in (
        (~np.isfinite(array), "finite numbers", "Look for the first layer that gives NaN or inf."),
        (array < 0, "no negative number", "Are these scores? Normalise them first: attention_weights(...)."),
    ):
        if wrong.any():
            first = np.unravel_index(np.argmax(wrong), array.shape)
            raise ValueError(
                f"weights: expected {expected}, got {array[first]:.6g} at {_show_index(first)} and {int(wrong.sum())} "
                f"such of {array.size} in all. {cure}"
            )


def _cure(array: object, ranks: tuple[int, ...]) -> str:
    if array.ndim > max(ranks):
        return f"Choose one: weights[0] takes the first entry of the first axis ({array.shape[0]} of them)."
    return "Put the missing axes in front: weights[None]."


def _show_index(index: tuple) -> str:
    return "[" + ", ".join(str(int(i)) for i in index) + "]"
