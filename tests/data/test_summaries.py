"""A reader who knows the sentences, not the generator, writes the same summaries; the first sentences do not."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_attention import data, training
from jax_attention.data.report_words import AGENTS, DAYS, FILLERS, NUMBERS, SUBJECTS, WHAT, WHEN, WHERE, WHO
from jax_attention.data.story_words import CITIES
from tests.support.tiers import slow

FACTS = {"who": WHO, "where": WHERE, "when": WHEN, "what": WHAT, "filler": FILLERS}
GAPS = {"agent": "|".join(AGENTS), "city": "|".join(CITIES), "day": "|".join(DAYS), "number": "|".join(NUMBERS)}
SLOTS = {slot: f"(?P<{slot}>{words})" for slot, words in GAPS.items()}
SLOTS |= {"objects": r"(?P<objects>\w+)", "participle": r"(?P<participle>\w+)"}


def pattern(form: str) -> re.Pattern:
    return re.compile(re.escape(form).replace(r"\{", "{").replace(r"\}", "}").format(**SLOTS))


PATTERNS = [(role, pattern(form)) for role, forms in FACTS.items() for form in forms]


def sentences(text: str) -> list[str]:
    return [part + " ." for part in text.removesuffix(" .").split(" . ")]


def understood(report: data.Report) -> list[tuple[str, dict[str, str]]]:
    """(role, words) of every sentence, which must have one meaning."""
    told = []
    for sentence in sentences(report.document):
        ((role, found),) = [(role, m) for role, form in PATTERNS if (m := form.fullmatch(sentence))]
        told.append((role, found.groupdict()))
    return told


def written(told) -> str:
    """The summary by the definition: who, where, when, and then what in the order of the table."""
    one = {slot: words[slot] for role, words in told if role in ("who", "where", "when") for slot in words}
    subject = next(subject for subject in SUBJECTS if one["agent"] in subject.agents)
    deeds = {words["objects"]: words for role, words in told if role == "what"}
    what = [(deed, deeds[deed.objects]) for deed in subject.deeds if deed.objects in deeds]
    assert len(what) == len(deeds) == sum(role == "what" for role, _ in told)
    assert all(words["participle"] == deed.participle for deed, words in what)
    parts = [f"{deed.past} {words['number']} {deed.objects}" for deed, words in what]
    joined = parts[0]
    for place, part in enumerate(parts[1:], 2):
        joined += (" and " if place == len(parts) else " , ") + part
    who, arrival = one["agent"][0].upper() + one["agent"][1:], subject.arrival.format(city=one["city"])
    return f"{who} {arrival} on {one['day']} . {subject.pronoun} {joined} ."


# --- What a report is ------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    facts=st.tuples(st.integers(1, 5), st.integers(1, 5)).map(sorted),
    fillers=st.tuples(st.integers(0, 16), st.integers(0, 16)).map(sorted),
    combinations=st.sampled_from(["training", "held_out"]),
)
def test_a_reader_writes_the_same_summary(seed, facts, fillers, combinations):
    for report in data.reports(seed, 3, facts=facts, fillers=fillers, combinations=combinations):
        told = understood(report)
        assert report.summary == written(told)
        times = Counter(role for role, _ in told)
        assert times["who"] == times["where"] == times["when"] == 1
        assert facts[0] <= times["what"] <= facts[1]
        assert fillers[0] <= times["filler"] <= fillers[1]
        assert len(set(sentences(report.document))) == len(told)


def test_what_does_not_matter_names_others():
    named = Counter()
    for report in data.reports(1, 300, facts=(1, 5), fillers=(16, 16)):
        told = understood(report)
        important = {word for role, words in told if role != "filler" for word in words.values()}
        others = {(slot, word) for role, words in told if role == "filler" for slot, word in words.items()}
        assert {word for _, word in others} & important == set()
        named.update(slot for slot, _ in others)
    assert set(named) == {"agent", "city", "day", "number"}


def test_numbers_of_sentences_are_drawn_from_their_ranges():
    made = [Counter(role for role, _ in understood(report)) for report in data.reports(3, 400)]
    for role, sizes in (("what", [1, 2, 3]), ("filler", [2, 3, 4, 5, 6])):
        times = Counter(counts[role] for counts in made)
        assert sorted(times) == sizes
        assert min(times.values()) > 40


def test_every_fact_stands_anywhere_equally_often():
    count, told = 1500, 6
    places = {role: Counter() for role in ("who", "where", "when", "what")}
    for report in data.reports(2, count, facts=(1, 1), fillers=(2, 2)):
        for place, (role, _) in enumerate(understood(report)):
            if role in places:
                places[role][place] += 1
    expected = count / told
    for role, times in places.items():
        surprise = sum((times[place] - expected) ** 2 / expected for place in range(told))
        assert surprise < 30, (role, times)  # chi-square with 5 degrees of freedom: 1 in 70000


# --- No short way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, *slow(2, 3)])
def test_the_first_sentences_are_no_summary(first):
    made = data.reports(0, 300)
    summaries = [report.summary for report in made]
    lead = [" ".join(sentences(report.document)[:first]) for report in made]
    found = training.rouge(lead, summaries, tokenize="spaces")
    assert found.rouge1 < 40
    assert found.rouge2 < 15
    assert training.exact_match(lead, summaries) == 0
    assert training.rouge(summaries, summaries, tokenize="spaces") == (100, 100, 100)


# --- Combinations and calls ------------------------------------------------------------------------------------------


def who_and_where(made: list[data.Report]) -> set[tuple[str, str]]:
    told = [dict(understood(report)) for report in made]
    return {(words["who"]["agent"], words["where"]["city"]) for words in told}


def test_training_and_held_out_reports_share_words_but_no_combination():
    seen = who_and_where(data.reports(0, 3000, fillers=(0, 0)))
    held_out = who_and_where(data.reports(0, 1000, fillers=(0, 0), combinations="held_out"))
    assert seen & held_out == set()
    assert (len(seen), len(held_out)) == (len(AGENTS) * 12, len(AGENTS) * 4)
    assert {agent for agent, _ in seen} == {agent for agent, _ in held_out} == set(AGENTS)
    assert {city for _, city in seen} == set(CITIES)


def test_a_report_is_a_function_of_seed_and_number():
    made = data.reports(5, 9)
    assert made == data.reports(5, 9)
    assert made[:3] == data.reports(5, 3)
    assert made != data.reports(6, 9)


WRONG = {
    "seed": ({"seed": -1}, "seed: expected an int >= 0, got -1. Seeds count from 0."),
    "count": ({"count": -1}, "count: expected an int >= 0, got -1. It is the number of reports."),
    "no fact": ({"facts": (0, 1)}, "facts: expected an int >= 1, got 0. facts is (smallest, largest), both included."),
    "facts": ({"facts": (1, 6)}, "facts: expected 1 <= smallest <= largest <= 5, got (1, 6). facts is (smallest, lar"),
    "fillers": ({"fillers": (3, 17)}, "fillers: expected 0 <= smallest <= largest <= 16, got (3, 17)."),
    "combinations": ({"combinations": None}, "combinations: expected 'training' or 'held_out', got None."),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_explained(name):
    wrong, message = WRONG[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        data.reports(**({"seed": 0, "count": 1} | wrong))


def test_a_number_of_facts_is_a_range():
    with pytest.raises(TypeError, match=r"fillers: expected a pair \(smallest, largest\), got int 3\. Always three is"):
        data.reports(0, 1, fillers=3)
