"""News-like reports and their summaries: the important facts in a fixed order, without what else was said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.corpora.combinations import between, check_combinations, check_range, drawn, permitted
from experiments.corpora.report_words import AGENTS, DAYS, FILLERS, NUMBERS, SUBJECTS, WHAT, WHEN, WHERE, WHO, Deed
from experiments.corpora.story_words import CITIES
from jax_attention.core.checks import check_int

MOST_FACTS = min(len(subject.deeds) for subject in SUBJECTS)


class Report(NamedTuple):
    """A document, sentences in any order, and its summary, two sentences: who where when . what ."""

    document: str
    summary: str


def reports(
    seed: int,
    count: int,
    *,
    facts: tuple[int, int] = (1, 3),
    fillers: tuple[int, int] = (2, 6),
    combinations: str = "training",
) -> list[Report]:
    """Reports of storms, matches, thefts and good deeds, each fact in a sentence of its own among sentences that do
    not matter.

        sentences = 3 + facts + fillers, in random order;    summary = who where when . what , what and what .

    The document says it in the passive voice and in any order, the summary in the active voice and always in one order.
    Fillers name other cities, days, numbers and agents. A quarter of the pairs (who, where), chosen by a hash, is held
    out: reports are made of the others only, or of these only. Report i is a function of seed, i and the options.

    Args:
        seed: from 0.
        count: how many reports.
        facts: the smallest and the largest number of deeds, 1 to 5.
        fillers: the smallest and the largest number of sentences that do not matter, 0 to 16.
        combinations: "training" or "held_out".

    Returns:
        A list of `Report`.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if a number is not an int.

    Example:
        >>> from experiments import corpora
        >>> for report in corpora.reports(seed=7, count=1, facts=(2, 2), fillers=(1, 1)):
        ...     print(report.document, report.summary, sep=" / ")
        A reporter from Prague asked many questions . By the evening six bridges had been damaged . It happened on
            Monday . Everyone is talking about a storm . It is certain that eight houses were destroyed . The city in
            question is Berlin . / A storm hit Berlin on Monday . It destroyed eight houses and damaged six bridges .

    Reference:
        See, Liu, Manning (2017), "Get to the point", https://arxiv.org/abs/1704.04368, for the task, and the first
        sentences as the baseline to beat.
    """
    check_int("seed", seed, 0, "Seeds count from 0.")
    check_int("count", count, 0, "It is the number of reports.")
    facts = check_range("facts", facts, 1, MOST_FACTS)
    fillers = check_range("fillers", fillers, 0, len(FILLERS))
    check_combinations(combinations)
    return [_report(np.random.default_rng((seed, index)), facts, fillers, combinations) for index in range(count)]


class _Event(NamedTuple):
    """What a report is about."""

    agent: str
    city: str
    day: str
    deeds: Sequence[tuple[str, Deed]]
    """Each with a number."""


def _report(rng: np.random.Generator, facts: tuple[int, int], fillers: tuple[int, int], combinations: str) -> Report:
    subject = drawn(rng, SUBJECTS, 1)[0]
    agent = drawn(rng, subject.agents, 1)[0]
    cities = drawn(rng, permitted(agent, CITIES, combinations), 1)
    numbers = drawn(rng, NUMBERS, len(NUMBERS))
    deeds = [subject.deeds[i] for i in sorted(drawn(rng, range(len(subject.deeds)), between(rng, facts)))]
    event = _Event(agent, cities[0], drawn(rng, DAYS, 1)[0], list(zip(numbers, deeds, strict=False)))
    sentences = [*_important(rng, event), *_unimportant(rng, event, between(rng, fillers))]
    document = " ".join(drawn(rng, sentences, len(sentences)))
    arrival = subject.arrival.format(city=event.city)
    told = _listed([f"{deed.past} {number} {deed.objects}" for number, deed in event.deeds])
    who = agent[0].upper() + agent[1:]
    return Report(document, f"{who} {arrival} on {event.day} . {subject.pronoun} {told} .")


def _important(rng: np.random.Generator, event: _Event) -> list[str]:
    forms = [drawn(rng, choices, 1)[0] for choices in (WHO, WHERE, WHEN)]
    facts = [form.format(agent=event.agent, city=event.city, day=event.day) for form in forms]
    for number, deed in event.deeds:
        form = drawn(rng, WHAT, 1)[0]
        facts.append(form.format(number=number, objects=deed.objects, participle=deed.participle))
    return facts


def _unimportant(rng: np.random.Generator, event: _Event, count: int) -> list[str]:
    """Different sentences about anything but the event."""
    numbers = {number for number, _ in event.deeds}
    others = {
        "agent": [agent for agent in AGENTS if agent != event.agent],
        "city": [city for city in CITIES if city != event.city],
        "day": [day for day in DAYS if day != event.day],
        "number": [number for number in NUMBERS if number not in numbers],
    }
    chosen = drawn(rng, FILLERS, count)
    return [form.format(**{slot: drawn(rng, words, 1)[0] for slot, words in others.items()}) for form in chosen]


def _listed(parts: list[str]) -> str:
    """`a`, `a and b`, `a , b and c`."""
    *before, last = parts
    return f"{' , '.join(before)} and {last}" if before else last
