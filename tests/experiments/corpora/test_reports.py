"""Reports, read back by the sentence forms alone: summaries, fillers, frequencies, held-out combinations, calls."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import corpora
from experiments.corpora.passage_words import CITIES
from experiments.corpora.report_words import AGENTS, DAYS, FILLERS, NUMBERS, SUBJECTS, WHAT, WHEN, WHERE, WHO
from jax_attention import training
from tests.support.tiers import slow

FORMS = {"who": WHO, "where": WHERE, "when": WHEN, "what": WHAT, "filler": FILLERS}
GAPS = {"agent": "|".join(AGENTS), "city": "|".join(CITIES), "day": "|".join(DAYS), "number": "|".join(NUMBERS)}
SLOTS = {slot: f"(?P<{slot}>{words})" for slot, words in GAPS.items()}
SLOTS |= {"objects": r"(?P<objects>\w+)", "participle": r"(?P<participle>\w+)"}


def pattern(form: str) -> re.Pattern:
    return re.compile(re.escape(form).replace(r"\{", "{").replace(r"\}", "}").format(**SLOTS))


PATTERNS = [(role, pattern(form)) for role, forms in FORMS.items() for form in forms]


def sentences(text: str) -> list[str]:
    return [part + " ." for part in text.removesuffix(" .").split(" . ")]


def parse(report: corpora.Report) -> list[tuple[str, dict[str, str]]]:
    """(role, words) of each sentence, which must have exactly one parse."""
    parsed = []
    for sentence in sentences(report.document):
        ((role, match),) = [(role, m) for role, form in PATTERNS if (m := form.fullmatch(sentence))]
        parsed.append((role, match.groupdict()))
    return parsed


def summarise(parsed) -> str:
    """The summary by its definition: who, where, when, and then what in the order of the table."""
    one = {slot: words[slot] for role, words in parsed if role in ("who", "where", "when") for slot in words}
    subject = next(subject for subject in SUBJECTS if one["agent"] in subject.agents)
    deeds = {words["objects"]: words for role, words in parsed if role == "what"}
    what = [(deed, deeds[deed.objects]) for deed in subject.deeds if deed.objects in deeds]
    assert len(what) == len(deeds) == sum(role == "what" for role, _ in parsed)
    assert all(words["participle"] == deed.participle for deed, words in what)
    parts = [f"{deed.past} {words['number']} {deed.objects}" for deed, words in what]
    deed_list = parts[0]
    for place, part in enumerate(parts[1:], 2):
        deed_list += (" and " if place == len(parts) else " , ") + part
    who, arrival = one["agent"][0].upper() + one["agent"][1:], subject.arrival.format(city=one["city"])
    return f"{who} {arrival} on {one['day']} . {subject.pronoun} {deed_list} ."


# --- What a report is ------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    facts=st.tuples(st.integers(1, 5), st.integers(1, 5)).map(sorted),
    fillers=st.tuples(st.integers(0, 16), st.integers(0, 16)).map(sorted),
    combinations=st.sampled_from(["training", "held_out"]),
)
def test_the_summary_follows_from_the_document(seed, facts, fillers, combinations):
    for report in corpora.reports(seed, 3, facts=facts, fillers=fillers, combinations=combinations):
        parsed = parse(report)
        assert report.summary == summarise(parsed)
        times = Counter(role for role, _ in parsed)
        assert times["who"] == times["where"] == times["when"] == 1
        assert facts[0] <= times["what"] <= facts[1]
        assert fillers[0] <= times["filler"] <= fillers[1]
        assert len(set(sentences(report.document))) == len(parsed)


def test_fillers_name_nothing_of_the_event():
    named = Counter()
    for report in corpora.reports(1, 300, facts=(1, 5), fillers=(16, 16)):
        parsed = parse(report)
        important = {word for role, words in parsed if role != "filler" for word in words.values()}
        others = {(slot, word) for role, words in parsed if role == "filler" for slot, word in words.items()}
        assert {word for _, word in others} & important == set()
        named.update(slot for slot, _ in others)
    assert set(named) == {"agent", "city", "day", "number"}


def test_numbers_of_sentences_are_drawn_from_their_ranges():
    role_counts = [Counter(role for role, _ in parse(report)) for report in corpora.reports(3, 400)]
    for role, sizes in (("what", [1, 2, 3]), ("filler", [2, 3, 4, 5, 6])):
        times = Counter(counts[role] for counts in role_counts)
        assert sorted(times) == sizes
        assert min(times.values()) > 40


def test_every_fact_is_in_every_place_equally_often():
    count, sentence_count = 1500, 6
    places = {role: Counter() for role in ("who", "where", "when", "what")}
    for report in corpora.reports(2, count, facts=(1, 1), fillers=(2, 2)):
        for place, (role, _) in enumerate(parse(report)):
            if role in places:
                places[role][place] += 1
    expected = count / sentence_count
    for role, times in places.items():
        chi_square = sum((times[place] - expected) ** 2 / expected for place in range(sentence_count))
        assert chi_square < 30, (role, times)  # 5 degrees of freedom: exceeded by chance once in 70000


# --- Baselines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, *slow(2, 3)])
def test_the_first_sentences_are_no_summary(first):
    made = corpora.reports(0, 300)
    summaries = [report.summary for report in made]
    first_sentences = [" ".join(sentences(report.document)[:first]) for report in made]
    rouge = training.rouge(first_sentences, summaries, tokenize="spaces")
    assert rouge.rouge1 < 40
    assert rouge.rouge2 < 15
    assert training.exact_match(first_sentences, summaries) == 0
    assert training.rouge(summaries, summaries, tokenize="spaces") == (100, 100, 100)


# --- Combinations and calls ------------------------------------------------------------------------------------------


def who_and_where(made: list[corpora.Report]) -> set[tuple[str, str]]:
    parsed = [dict(parse(report)) for report in made]
    return {(words["who"]["agent"], words["where"]["city"]) for words in parsed}


def test_training_and_held_out_reports_share_words_but_no_combination():
    in_training = who_and_where(corpora.reports(0, 3000, fillers=(0, 0)))
    held_out = who_and_where(corpora.reports(0, 1000, fillers=(0, 0), combinations="held_out"))
    assert in_training & held_out == set()
    assert (len(in_training), len(held_out)) == (len(AGENTS) * 12, len(AGENTS) * 4)
    assert {agent for agent, _ in in_training} == {agent for agent, _ in held_out} == set(AGENTS)
    assert {city for _, city in in_training} == set(CITIES)


def test_a_report_is_a_function_of_seed_and_number():
    made = corpora.reports(5, 9)
    assert made == corpora.reports(5, 9)
    assert made[:3] == corpora.reports(5, 3)
    assert made != corpora.reports(6, 9)


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
        corpora.reports(**({"seed": 0, "count": 1} | wrong))


def test_a_number_of_facts_is_a_range():
    with pytest.raises(TypeError, match=r"fillers: expected a pair \(smallest, largest\), got int 3\. Always three is"):
        corpora.reports(0, 1, fillers=3)
