"""News-like reports and their summaries: the important facts in a fixed order, without the fillers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.corpora.combinations import allowed_words, check_combinations, check_range, draw, draw_int
from experiments.corpora.passage_words import CITIES
from experiments.corpora.report_words import AGENTS, DAYS, FILLERS, NUMBERS, SUBJECTS, WHAT, WHEN, WHERE, WHO, Deed
from jax_attention.core.checks import check_int

MOST_FACTS = min(len(subject.deeds) for subject in SUBJECTS)


class Report(NamedTuple):
    """A document, with sentences in random order, and its summary of two sentences: who where when . what ."""

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
    """Draw reports of storms, matches, thefts and good deeds, with one fact per sentence and fillers between them.

        sentences = 3 + facts + fillers, in random order;    summary = who where when . what , what and what .

    The document states facts in the passive voice and in random order, the summary in the active voice and in a fixed
    order. Fillers are sentences that do not matter; they name other cities, days, numbers and agents. A quarter of the
    pairs (who, where), chosen by a hash, is held out: reports use either none of them or only them. Report i is a
    function of seed, i and the options.

    Args:
        seed: seed of the draws, from 0.
        count: number of reports.
        facts: (smallest, largest) number of deeds, 1 to 5.
        fillers: (smallest, largest) number of fillers, 0 to 16.
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
        See, Liu, Manning (2017), "Get to the point", https://arxiv.org/abs/1704.04368, for the task, and for the first
        sentences as a baseline.
    """
    check_int("seed", seed, 0, "Seeds count from 0.")
    check_int("count", count, 0, "It is the number of reports.")
    facts = check_range("facts", facts, 1, MOST_FACTS)
    fillers = check_range("fillers", fillers, 0, len(FILLERS))
    check_combinations(combinations)
    return [_draw_report(np.random.default_rng((seed, index)), facts, fillers, combinations) for index in range(count)]


class _Event(NamedTuple):
    """The event that a report is about."""

    agent: str
    city: str
    day: str
    deeds: Sequence[tuple[str, Deed]]
    """Pairs (number of objects, deed)."""


def _draw_report(
    rng: np.random.Generator, facts: tuple[int, int], fillers: tuple[int, int], combinations: str
) -> Report:
    """One report with its summary."""
    subject = draw(rng, SUBJECTS, 1)[0]
    agent = draw(rng, subject.agents, 1)[0]
    cities = draw(rng, allowed_words(agent, CITIES, combinations), 1)
    numbers = draw(rng, NUMBERS, len(NUMBERS))
    deeds = [subject.deeds[i] for i in sorted(draw(rng, range(len(subject.deeds)), draw_int(rng, facts)))]
    event = _Event(agent, cities[0], draw(rng, DAYS, 1)[0], list(zip(numbers, deeds, strict=False)))
    sentences = [*_fact_sentences(rng, event), *_filler_sentences(rng, event, draw_int(rng, fillers))]
    document = " ".join(draw(rng, sentences, len(sentences)))
    arrival = subject.arrival.format(city=event.city)
    deed_list = _enumerate_in_words([f"{deed.past} {number} {deed.objects}" for number, deed in event.deeds])
    who = agent[0].upper() + agent[1:]
    return Report(document, f"{who} {arrival} on {event.day} . {subject.pronoun} {deed_list} .")


def _fact_sentences(rng: np.random.Generator, event: _Event) -> list[str]:
    """One sentence for each fact: who, where, when, and each deed."""
    forms = [draw(rng, choices, 1)[0] for choices in (WHO, WHERE, WHEN)]
    facts = [form.format(agent=event.agent, city=event.city, day=event.day) for form in forms]
    for number, deed in event.deeds:
        form = draw(rng, WHAT, 1)[0]
        facts.append(form.format(number=number, objects=deed.objects, participle=deed.participle))
    return facts


def _filler_sentences(rng: np.random.Generator, event: _Event, count: int) -> list[str]:
    """Different sentences that name nothing of the event."""
    numbers = {number for number, _ in event.deeds}
    others = {
        "agent": [agent for agent in AGENTS if agent != event.agent],
        "city": [city for city in CITIES if city != event.city],
        "day": [day for day in DAYS if day != event.day],
        "number": [number for number in NUMBERS if number not in numbers],
    }
    chosen = draw(rng, FILLERS, count)
    return [form.format(**{slot: draw(rng, words, 1)[0] for slot, words in others.items()}) for form in chosen]


def _enumerate_in_words(parts: list[str]) -> str:
    """English enumeration: `a`, `a and b`, `a , b and c`."""
    *before, last = parts
    return f"{' , '.join(before)} and {last}" if before else last
