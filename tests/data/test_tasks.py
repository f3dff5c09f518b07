"""Each task obeys its equation, for every length and vocabulary, and is a pure function of the generator."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jax_attention import data
from jax_attention.data import tasks

TARGET_OF = {"copy": lambda x: x, "reverse": lambda x: x[::-1], "sort": sorted}
LENGTH = st.one_of(st.integers(1, 7), st.tuples(st.integers(1, 4), st.integers(4, 9)))


def draw(name: str, seed: int, *arguments, **options):
    return getattr(data.tasks, name)(np.random.default_rng(seed), *arguments, **options)


@pytest.mark.parametrize("name", TARGET_OF)
@given(st.integers(0, 99), st.integers(0, 12), LENGTH, st.integers(1, 9))
@example(0, 0, 3, 2)
def test_targets_obey_the_equation(name, seed, count, length, vocabulary):
    sources, targets = draw(name, seed, count, length, vocabulary)
    assert len(sources) == len(targets) == count
    least, most = length if isinstance(length, tuple) else (length, length)
    for source, target in zip(sources, targets, strict=True):
        assert source.dtype == target.dtype == np.int32
        assert least <= len(source) <= most
        assert set(source.tolist()) <= set(range(vocabulary))
        assert target.tolist() == list(TARGET_OF[name](source.tolist()))
        assert not np.shares_memory(source, target)


@given(st.integers(0, 99), st.integers(1, 12), LENGTH, st.integers(19, 30), st.sampled_from([None, 1]))
def test_the_target_of_recall_is_the_value_of_the_queried_key(seed, count, length, vocabulary, distance):
    sources, targets = draw("recall", seed, count, length, vocabulary, distance=distance)
    key_count = (vocabulary - 1) // 2
    least, most = length if isinstance(length, tuple) else (length, length)
    assert len(sources) == len(targets) == count
    for source, target in zip(sources, targets, strict=True):
        assert source.dtype == target.dtype == np.int32
        *key_value_list, mark, key = source.tolist()
        keys, values = key_value_list[::2], key_value_list[1::2]
        assert least <= len(keys) <= most
        assert len(set(keys)) == len(keys)
        assert set(keys) <= set(range(key_count))
        assert set(values) <= set(range(key_count, 2 * key_count))
        assert mark == vocabulary - 1
        assert dict(zip(keys, values, strict=True))[key] == target.tolist()[0]
        assert len(target) == 1
        if distance is not None:
            assert keys[-distance] == key


def distance_of(source: np.ndarray) -> int:
    """Distance of the queried key from the end of the list of keys, 1 for the last."""
    return (len(source) - 2) // 2 - source[:-2:2].tolist().index(source[-1])


def test_the_distance_is_drawn_or_kept():
    for distance in (1, 2, 4):
        assert {distance_of(x) for x in draw("recall", 0, 50, (4, 9), 30, distance=distance)[0]} == {distance}
    counts = Counter(distance_of(x) for x in draw("recall", 0, 4000, 4, 30)[0])
    assert sorted(counts) == [1, 2, 3, 4]
    assert all(abs(n - 1000) < 4 * 27.4 for n in counts.values())  # sqrt(4000 * 1/4 * 3/4) = 27.4


def test_lengths_and_tokens_are_equally_likely():
    sources, _ = draw("copy", 1, 4000, (2, 5), 4)
    lengths, tokens = Counter(map(len, sources)), Counter(np.concatenate(sources).tolist())
    assert sorted(lengths) == [2, 3, 4, 5]
    assert all(abs(n - 1000) < 4 * 27.4 for n in lengths.values())
    total = sum(tokens.values())
    assert all(abs(n - total / 4) < 4 * (total * 3 / 16) ** 0.5 for n in tokens.values())


@pytest.mark.parametrize("name", tasks.__all__)
def test_tasks_are_functions_of_the_generator(name):
    one, same, other = (draw(name, seed, 20, (2, 5), 21) for seed in (3, 3, 4))
    first, again, different = ([[x.tolist() for x in rows] for rows in pairs] for pairs in (one, same, other))
    assert first == again != different
    assert len({tuple(x.tolist()) for x in one[0]}) > 10


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "message"),
    [
        ("copy", (-1, 3, 5), {}, ValueError, "count: expected an int >= 0, got -1"),
        ("sort", (1, 0, 5), {}, ValueError, "length: expected an int >= 1, got 0"),
        ("sort", (1, (3, 2), 5), {}, ValueError, "length: expected an int >= 3, got 2"),
        ("reverse", (1, (1, 2, 3), 5), {}, TypeError, r"length: expected a Python int .*\(least, most\)"),
        ("copy", (1, 3, 0), {}, ValueError, "vocabulary: expected an int >= 1, got 0"),
        ("recall", (1, 3, 2), {}, ValueError, "vocabulary: expected an int >= 3, got 2"),
        (
            "recall",
            (1, 5, 9),
            {},
            ValueError,
            r"at most the 4 different keys of a vocabulary of 9, got 5. Take voc.*=11",
        ),
        ("recall", (1, 3, 9), {"distance": 0}, ValueError, "distance: expected an int >= 1, got 0"),
        ("recall", (1, 3, 9), {"distance": 4}, ValueError, "distance: expected at most the 3 keys of a source, got 4"),
    ],
)
def test_wrong_numbers(name, arguments, options, error, message):
    with pytest.raises(error, match=message):
        draw(name, 0, *arguments, **options)


def test_a_seed_is_no_generator():
    for name in tasks.__all__:
        with pytest.raises(TypeError, match=r"rng: expected a NumPy generator, got a value of type int\. Make one"):
            getattr(tasks, name)(0, 1, 3, 9)
