"""Passages, read back by the sentence forms alone: answers, places, updates, frequencies, held-out combinations."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import corpora
from experiments.corpora.combinations import allowed_words
from experiments.corpora.passage_words import CITIES, KINDS, NAMES

SETTINGS = {
    "plain": {},
    "two people": {"people": (2, 2), "kinds": 1},
    "many": {"people": (5, 6), "kinds": 6, "updates": 2},
    "updates": {"people": (2, 3), "kinds": 2, "updates": 3},
    "held out": {"people": (3, 4), "kinds": 3, "updates": 1, "combinations": "held_out"},
}


def pattern(form: str) -> re.Pattern:
    """Regular expression of a sentence form, with a group for each gap; "a" or "an" must fit the word after it."""
    form = re.escape(form).replace(r"\{", "{").replace(r"\}", "}")
    form = form.replace(r"{a}\ {value}", r"(?:an\ {vowel}|a\ {other})")
    gaps = {"name": r"(?P<name>\w+)", "value": r"(?P<value>\w+)"}
    return re.compile(form.format(**gaps, vowel=r"(?P<one>[aeiou]\w*)", other=r"(?P<two>[^\Waeiou]\w*)"))


STATEMENTS = [(place, pattern(form)) for place, kind in enumerate(KINDS) for form in (*kind.statements, *kind.updates)]
QUESTIONS = [(place, pattern(form)) for place, kind in enumerate(KINDS) for form in kind.questions]


def parse(sentence: str, forms) -> tuple[int, str, str | None]:
    """(kind, name, value) of a sentence, which must have exactly one parse."""
    meanings = set()
    for kind, form in forms:
        if match := form.fullmatch(sentence):
            groups = match.groupdict()
            value = groups.get("value") or groups.get("one") or groups.get("two")
            if groups["name"] in NAMES and (value is None or value in KINDS[kind].values):
                meanings.add((kind, groups["name"], value))
    (meaning,) = meanings
    return meaning


def sentences(text: str) -> list[str]:
    return [part + " ." for part in text.removesuffix(" .").split(" . ")]


def facts(passage: corpora.Passage) -> list[tuple[int, str, str]]:
    return [parse(sentence, STATEMENTS) for sentence in sentences(passage.text)]


def name_value_pairs(passages: list[corpora.Passage]) -> set[tuple[str, str]]:
    return {(name, value) for passage in passages for _, name, value in facts(passage)}


# --- Answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_the_answer_follows_from_the_text(name):
    for passage in corpora.passages(7, 60, **SETTINGS[name]):
        latest = {(kind, person): value for kind, person, value in facts(passage)}  # later statements overwrite
        kind, person, _ = parse(passage.question, QUESTIONS)
        assert latest[kind, person] == passage.answer
        words = passage.text.split(" ")
        assert words[passage.place] == passage.answer
        assert words.count(passage.answer) == 1


@given(
    seed=st.integers(0, 10**6),
    people=st.tuples(st.integers(2, 6), st.integers(2, 6)).map(sorted),
    kinds=st.integers(1, 6),
    updates=st.integers(0, 2),
    combinations=st.sampled_from(["training", "held_out"]),
)
def test_each_person_has_one_value_of_each_kind_and_all_values_differ(seed, people, kinds, updates, combinations):
    updates = min(updates, people[0] * kinds - 1)
    (passage,) = corpora.passages(seed, 1, people=people, kinds=kinds, updates=updates, combinations=combinations)
    stated = facts(passage)
    names, topics = {name for _, name, _ in stated}, {kind for kind, _, _ in stated}
    assert people[0] <= len(names) <= people[1]
    assert len(topics) == kinds
    times = Counter((kind, name) for kind, name, _ in stated)
    assert sorted(times) == sorted((kind, name) for kind in topics for name in names)
    assert sorted(times.values()) == [1] * (len(times) - updates) + [2] * updates
    assert len({value for _, _, value in stated}) == len(stated)


def test_updates_follow_first_statements():
    first_statements = {(k, form) for k, kind in enumerate(KINDS) for form in map(pattern, kind.statements)}
    questions_about_updates = 0
    for passage in corpora.passages(2, 200, people=(2, 2), kinds=2, updates=2):
        seen = set()
        for sentence in sentences(passage.text):
            kind, name, _ = parse(sentence, STATEMENTS)
            is_first = any(k == kind and form.fullmatch(sentence) for k, form in first_statements)
            assert is_first == ((kind, name) not in seen), sentence
            seen.add((kind, name))
        kind, name, _ = parse(passage.question, QUESTIONS)
        questions_about_updates += sum(fact[:2] == (kind, name) for fact in facts(passage)) == 2
    assert 20 < questions_about_updates < 180


@pytest.mark.parametrize("updates", [0, 3])
def test_the_answer_is_in_every_sentence_equally_often(updates):
    count, statements = 2000, 6 + updates
    places = Counter()
    for passage in corpora.passages(3, count, people=(3, 3), kinds=2, updates=updates):
        places[passage.text.split(" ")[: passage.place].count(".")] += 1
    assert sorted(places) == list(range(statements))
    expected = count / statements
    chi_square = sum((times - expected) ** 2 / expected for times in places.values())
    assert chi_square < 30, places  # 5 or 8 degrees of freedom: exceeded by chance once in 5000 or less


def test_sentences_are_in_random_order():
    """The second sentence is about the person of the first in 1 of 5 passages, about its kind in 2 of 5."""
    count, person, topic = 1000, 0, 0
    for passage in corpora.passages(6, count, people=(3, 3), kinds=2):
        first, second = facts(passage)[:2]
        person, topic = person + (first[1] == second[1]), topic + (first[0] == second[0])
    assert abs(person - count / 5) < 65  # five standard deviations
    assert abs(topic - 2 * count / 5) < 80


def test_the_number_of_people_is_drawn_from_its_range():
    sizes = Counter(len({name for _, name, _ in facts(passage)}) for passage in corpora.passages(8, 300, people=(2, 4)))
    assert sorted(sizes) == [2, 3, 4]
    assert min(sizes.values()) > 60


def test_the_place_of_the_answer_among_values_is_random():
    """The answer is the first, second and third value of its kind equally often."""
    order = Counter()
    for passage in corpora.passages(4, 900, people=(3, 3), kinds=1):
        order[[value for _, _, value in facts(passage)].index(passage.answer)] += 1
    assert all(abs(order[i] - 300) < 75 for i in range(3)), order  # five standard deviations


# --- Combinations ----------------------------------------------------------------------------------------------------


def test_training_and_held_out_passages_share_words_but_no_combination():
    training = name_value_pairs(corpora.passages(0, 1500, people=(4, 4), kinds=6))
    held_out = name_value_pairs(corpora.passages(0, 600, people=(4, 4), kinds=6, combinations="held_out"))
    assert training & held_out == set()
    assert (len(training), len(held_out)) == (len(NAMES) * 6 * 12, len(NAMES) * 6 * 4)
    words = {value for kind in KINDS for value in kind.values}
    assert {name for name, _ in training} == {name for name, _ in held_out} == set(NAMES)
    assert {value for _, value in training} == words
    assert len({value for _, value in held_out}) > 80


def test_the_split_never_changes():
    """The held-out words, pinned: results of different versions are compared on them."""
    assert allowed_words("Mary", CITIES, "held_out") == ("Rome", "London", "Oslo", "Lima")
    assert allowed_words("John", CITIES, "held_out") == ("Paris", "Cairo", "Tokyo", "Boston")


def test_words_have_one_meaning():
    values = [value for kind in KINDS for value in kind.values]
    assert len({*values, *NAMES}) == len(values) + len(NAMES)
    forms = " ".join(form for kind in KINDS for form in (*kind.statements, *kind.updates)).split()
    assert {*values, *NAMES} & {*forms} == set()


# --- Calls -----------------------------------------------------------------------------------------------------------


def test_a_passage_is_a_function_of_seed_and_number():
    made = corpora.passages(5, 9)
    assert made == corpora.passages(5, 9)
    assert made[:3] == corpora.passages(5, 3)
    assert made != corpora.passages(6, 9)
    assert corpora.passages(5, 0) == []


WRONG = {
    "seed": ({"seed": -1}, "seed: expected an int >= 0, got -1. Seeds count from 0."),
    "count": ({"count": -1}, "count: expected an int >= 0, got -1. It is the number of passages."),
    "one person": ({"people": (1, 3)}, "people: expected an int >= 2, got 1. people is (smallest, largest), both incl"),
    "too many": (
        {"people": (2, 9)},
        "people: expected 2 <= smallest <= largest <= 8, got (2, 9). people is (smallest",
    ),
    "backwards": ({"people": (3, 2)}, "people: expected 2 <= smallest <= largest <= 8, got (3, 2)."),
    "kinds": ({"kinds": 7}, "kinds: expected at most the 6 existing ones, got 7. Take fewer."),
    "updates": (
        {"people": (2, 2), "kinds": 1, "updates": 2},
        "updates: expected at most 1, so that values differ and one fact stays, got 2. Take fewer, or other people or "
        "kinds: people=(2, 2), kinds=1.",
    ),
    "too many values": ({"people": (2, 6), "kinds": 6, "updates": 3}, "updates: expected at most 2, so that"),
    "combinations": (
        {"combinations": "test"},
        "combinations: expected 'training' or 'held_out', got 'test'. Train on the one, test on the other.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_explained(name):
    wrong, message = WRONG[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        corpora.passages(**({"seed": 0, "count": 1} | wrong))


def test_a_number_of_people_is_a_range():
    with pytest.raises(TypeError, match=r"people: expected a pair \(smallest, largest\), got int 3\. Always three is"):
        corpora.passages(0, 1, people=3)
