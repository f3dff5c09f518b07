"""Random draws shared by the generators of passages and reports, and the combinations of words that are held out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.data.split import name_hash

COMBINATIONS = ("training", "held_out")
ONE_HELD_OUT_IN = 4
"""Of the combinations of a word with others, one in so many is held out."""


def draw(rng: np.random.Generator, choices: Sequence[Any], count: int) -> list[Any]:
    """Draw `count` different choices, in random order."""
    return [choices[i] for i in rng.permutation(len(choices))[:count]]


def draw_int(rng: np.random.Generator, ends: tuple[int, int]) -> int:
    """Draw an int from a range, both ends included."""
    return int(rng.integers(ends[0], ends[1] + 1))


@functools.cache
def allowed_words(owner: str, words: tuple[str, ...], combinations: str) -> tuple[str, ...]:
    """The words that may be combined with `owner`: a quarter of them, chosen by a hash of both, is held out."""
    ranked = sorted(words, key=lambda word: name_hash(f"{owner} {word}"))
    held_out = set(ranked[: len(words) // ONE_HELD_OUT_IN])
    return tuple(word for word in words if (word in held_out) == (combinations == "held_out"))


def check_combinations(combinations: str) -> str:
    """Check the name of a set of combinations."""
    fail_unless(
        isinstance(combinations, str) and combinations in COMBINATIONS,
        f"combinations: expected 'training' or 'held_out', got {combinations!r}. Train on the one, test on the other.",
    )
    return combinations


def check_range(name: str, x: Any, least: int, most: int) -> tuple[int, int]:
    """Check a pair (smallest, largest) of ints, both included."""
    fail_unless(
        isinstance(x, (tuple, list)) and len(x) == 2,
        f"{name}: expected a pair (smallest, largest), got {describe_array(x)}. Always three is (3, 3).",
        TypeError,
    )
    cure = f"{name} is (smallest, largest), both included."
    low, high = (check_int(name, end, least, cure) for end in x)
    fail_unless(low <= high <= most, f"{name}: expected {least} <= smallest <= largest <= {most}, got {x}. {cure}")
    return low, high
