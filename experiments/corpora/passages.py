"""Short passages about people, each with a question that one word of the passage answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.corpora.combinations import allowed_words, check_combinations, check_range, draw, draw_int
from experiments.corpora.passage_words import KINDS, NAMES, Kind, article
from jax_attention.core.checks import check_int, fail_unless

MAX_VALUES_PER_KIND = 8
"""Upper bound on the values of one kind in a passage, so that different ones are left also among held-out ones."""


class Passage(NamedTuple):
    """A text, a question, and its answer, which occurs once in the text: `text.split(" ")[place] == answer`."""

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
    """Draw passages about people with a home, a profession, a favourite colour, a pet, an instrument and a bag.

        sentences = people x kinds + updates,    P(the answer is in sentence i) = 1 / sentences

    Each person has one value of each kind of fact, and all values of a passage differ. So the passage has other values
    of the kind that the question asks for, and other facts about the same person. An updated fact is stated twice, and
    the later value is the right one. A quarter of the pairs (person, value), chosen by a hash, is held out: a passage
    uses either none of them or only them. Passage i is a function of seed, i and the options.

    Args:
        seed: seed of the draws, from 0.
        count: number of passages.
        people: (smallest, largest) number of people, at least 2.
        kinds: number of kinds of facts in a passage, 1 to 6.
        updates: number of facts that change in the course of a passage.
        combinations: "training" or "held_out".

    Returns:
        A list of `Passage`.

    Raises:
        ValueError: if a number is out of range, `people[1] + updates` exceeds 8, or every fact would change.
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
    people = check_range("people", people, 2, MAX_VALUES_PER_KIND)
    check_int("kinds", kinds, 1, f"There are {len(KINDS)}.")
    fail_unless(
        kinds <= len(KINDS), f"kinds: expected at most the {len(KINDS)} existing ones, got {kinds}. Take fewer."
    )
    check_int("updates", updates, 0, "It is the number of facts that change.")
    check_combinations(combinations)
    most = min(MAX_VALUES_PER_KIND - people[1], people[0] * kinds - 1)
    fail_unless(
        updates <= most,
        f"updates: expected at most {most}, so that values differ and one "
        f"fact stays, got {updates}. Take fewer, or other people or kinds: people={people}, kinds={kinds}.",
    )
    return [
        _passage(np.random.default_rng((seed, index)), people, kinds, updates, combinations) for index in range(count)
    ]


class _Fact(NamedTuple):
    """One fact about a person: its value, or the old and the new value of an updated fact."""

    name: str
    kind: Kind
    values: Sequence[str]


def _passage(rng: np.random.Generator, people: tuple[int, int], kinds: int, updates: int, combinations: str) -> Passage:
    facts = None
    while facts is None:
        facts = _draw_facts(rng, people, kinds, updates, combinations)
    statements = [index for index, fact in enumerate(facts) for _ in fact.values]
    # The sentence of the answer is drawn first, so that it is everywhere equally often; then the order, until that
    # sentence is the last statement of its fact.
    at, order = int(rng.integers(len(statements))), rng.permutation(statements)
    while order[at] in order[at + 1 :]:
        order = rng.permutation(statements)
    sentences, stated = [], [0] * len(facts)
    for index in order:
        sentences.append(_draw_statement(rng, facts[index], stated[index]))
        stated[index] += 1
    text, queried = " ".join(sentences), facts[order[at]]
    answer = queried.values[-1]
    question = draw(rng, queried.kind.questions, 1)[0].format(name=queried.name)
    return Passage(text, question, answer, text.split(" ").index(answer))


def _draw_facts(
    rng: np.random.Generator, people: tuple[int, int], kinds: int, updates: int, combinations: str
) -> list[_Fact] | None:
    """A value of each kind for each person, all different; None if the first draws left none for a later one."""
    names, chosen = draw(rng, NAMES, draw_int(rng, people)), draw(rng, KINDS, kinds)
    pairs = [(name, kind) for kind in chosen for name in names]
    changing = draw(rng, range(len(pairs)), updates)
    taken: set[str] = set()
    facts = []
    for index, (name, kind) in enumerate(pairs):
        free = [value for value in allowed_words(name, kind.values, combinations) if value not in taken]
        value_count = 2 if index in changing else 1
        if len(free) < value_count:
            return None
        values = draw(rng, free, value_count)
        taken.update(values)
        facts.append(_Fact(name, kind, values))
    return facts


def _draw_statement(rng: np.random.Generator, fact: _Fact, time: int) -> str:
    """A sentence that states a fact: for `time` 0 its first value, for 1 the updated one."""
    value = fact.values[time]
    form = draw(rng, fact.kind.updates if time else fact.kind.statements, 1)[0]
    return form.format(name=fact.name, value=value, a=article(value))
