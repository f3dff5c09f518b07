"""Short passages about people, each with a question whose answer is one word of the passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.corpora.combinations import between, check_combinations, check_range, drawn, permitted
from experiments.corpora.story_words import KINDS, NAMES, Kind, article
from jax_attention.core.checks import check_int, fail_unless

MOST_TOLD = 8
"""So many values of one kind fit into a passage, all different, also when only held-out ones are allowed."""


class Passage(NamedTuple):
    """A text, a question and its answer: `text.split(" ")[place] == answer`, and the text holds it once."""

    text: str
    question: str
    answer: str
    place: int


def passages(
    seed: int,
    count: int,
    *,
    people: tuple[int, int] = (2, 4),
    kinds: int = 2,
    updates: int = 0,
    combinations: str = "training",
) -> list[Passage]:
    """Passages about people who live somewhere, have a profession, a colour, a pet, an instrument and a bag.

        sentences = people x kinds + updates,    P(the answer stands in sentence i) = 1 / sentences

    Everybody has one value of each kind, and all values of a passage differ: the value asked for stands among others of
    its kind and among other facts of its person. An updated fact is told twice, and the last time counts. A quarter of
    the pairs (person, value), chosen by a hash, is held out: passages are made of the others only, or of these only.
    Passage i is a function of seed, i and the options.

    Args:
        seed: from 0.
        count: how many passages.
        people: the smallest and the largest number of people, from 2.
        kinds: how many kinds of facts are told in a passage, 1 to 6.
        updates: how many facts change in the course of a passage.
        combinations: "training" or "held_out".

    Returns:
        A list of `Passage`.

    Raises:
        ValueError: if a number is out of range, `people[1] + updates` exceeds 8, or all facts are to change.
        TypeError: if a number is not an int.

    Example:
        >>> from experiments import corpora
        >>> for passage in corpora.passages(seed=3, count=1, people=(2, 2), kinds=1, updates=1):
        ...     print(passage.text, passage.question, passage.answer, sep=" / ")
        Nina plays the guitar . Alice plays the piano . Nina switched to the clarinet . /
            Which instrument does Nina play ? / clarinet

    Reference:
        Weston et al. (2015), "Towards AI-complete question answering", https://arxiv.org/abs/1502.05698.
    """
    check_int("seed", seed, 0, "Seeds count from 0.")
    check_int("count", count, 0, "It is the number of passages.")
    people = check_range("people", people, 2, MOST_TOLD)
    check_int("kinds", kinds, 1, f"There are {len(KINDS)}.")
    fail_unless(
        kinds <= len(KINDS), f"kinds: expected at most the {len(KINDS)} that there are, got {kinds}. Take fewer."
    )
    check_int("updates", updates, 0, "It is the number of facts that change.")
    check_combinations(combinations)
    fail_unless(
        people[1] + updates <= MOST_TOLD and updates < people[0] * kinds,
        f"updates: expected at most {min(MOST_TOLD - people[1], people[0] * kinds - 1)}, so that values differ and one "
        f"fact stays, got {updates}. Take fewer, or other people or kinds: people={people}, kinds={kinds}.",
    )
    return [
        _passage(np.random.default_rng((seed, index)), people, kinds, updates, combinations) for index in range(count)
    ]


class _Fact(NamedTuple):
    """What is told of one person: one value, or an old and a new one."""

    name: str
    kind: Kind
    values: Sequence[str]


def _passage(rng: np.random.Generator, people: tuple[int, int], kinds: int, updates: int, combinations: str) -> Passage:
    facts = None
    while facts is None:
        facts = _facts(rng, people, kinds, updates, combinations)
    tellings = [index for index, fact in enumerate(facts) for _ in fact.values]
    at, order = int(rng.integers(len(tellings))), rng.permutation(tellings)
    while order[at] in order[at + 1 :]:  # what stands there is not the last word on its fact
        order = rng.permutation(tellings)
    sentences, told = [], [0] * len(facts)
    for index in order:
        sentences.append(_told(rng, facts[index], told[index]))
        told[index] += 1
    text, asked = " ".join(sentences), facts[order[at]]
    answer = asked.values[-1]
    question = drawn(rng, asked.kind.asked, 1)[0].format(name=asked.name)
    return Passage(text, question, answer, text.split(" ").index(answer))


def _facts(
    rng: np.random.Generator, people: tuple[int, int], kinds: int, updates: int, combinations: str
) -> list[_Fact] | None:
    """Everybody's value of every kind, all of them different; None if those drawn first left none for the last."""
    names, chosen = drawn(rng, NAMES, between(rng, people)), drawn(rng, KINDS, kinds)
    pairs = [(name, kind) for kind in chosen for name in names]
    changing = drawn(rng, range(len(pairs)), updates)
    taken: set[str] = set()
    facts = []
    for index, (name, kind) in enumerate(pairs):
        free = [value for value in permitted(name, kind.values, combinations) if value not in taken]
        wanted = 2 if index in changing else 1
        if len(free) < wanted:
            return None
        values = drawn(rng, free, wanted)
        taken.update(values)
        facts.append(_Fact(name, kind, values))
    return facts


def _told(rng: np.random.Generator, fact: _Fact, time: int) -> str:
    value = fact.values[time]
    form = drawn(rng, fact.kind.changed if time else fact.kind.told, 1)[0]
    return form.format(name=fact.name, value=value, a=article(value))
