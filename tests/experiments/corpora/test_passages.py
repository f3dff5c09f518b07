"""A reader who knows the sentences, not the generator, finds every answer where it is said to stand."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import corpora
from experiments.corpora.combinations import permitted
from experiments.corpora.story_words import CITIES, KINDS, NAMES

SETTINGS = {
    "plain": {},
    "two people": {"people": (2, 2), "kinds": 1},
    "many": {"people": (5, 6), "kinds": 6, "updates": 2},
    "updated": {"people": (2, 3), "kinds": 2, "updates": 3},
    "held out": {"people": (3, 4), "kinds": 3, "updates": 1, "combinations": "held_out"},
}


def pattern(form: str) -> re.Pattern:
    """A sentence with its gaps as groups; an article fits only the words that it may stand before."""
    form = re.escape(form).replace(r"\{", "{").replace(r"\}", "}")
    form = form.replace(r"{a}\ {value}", r"(?:an\ {vowel}|a\ {other})")
    gaps = {"name": r"(?P<name>\w+)", "value": r"(?P<value>\w+)"}
    return re.compile(form.format(**gaps, vowel=r"(?P<one>[aeiou]\w*)", other=r"(?P<two>[^\Waeiou]\w*)"))


TOLD = [(place, pattern(form)) for place, kind in enumerate(KINDS) for form in (*kind.told, *kind.changed)]
ASKED = [(place, pattern(form)) for place, kind in enumerate(KINDS) for form in kind.asked]


def understood(sentence: str, forms) -> tuple[int, str, str | None]:
    """(kind, name, value); a sentence must have one meaning."""
    meanings = set()
    for kind, form in forms:
        if found := form.fullmatch(sentence):
            groups = found.groupdict()
            value = groups.get("value") or groups.get("one") or groups.get("two")
            if groups["name"] in NAMES and (value is None or value in KINDS[kind].values):
                meanings.add((kind, groups["name"], value))
    (meaning,) = meanings
    return meaning


def sentences(text: str) -> list[str]:
    return [part + " ." for part in text.removesuffix(" .").split(" . ")]


def facts(passage: corpora.Passage) -> list[tuple[int, str, str]]:
    return [understood(sentence, TOLD) for sentence in sentences(passage.text)]


def pairs(made: list[corpora.Passage]) -> set[tuple[str, str]]:
    return {(name, value) for passage in made for _, name, value in facts(passage)}


# --- What is asked stands there --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_a_reader_finds_the_answer(name):
    for passage in corpora.passages(7, 60, **SETTINGS[name]):
        known = {(kind, person): value for kind, person, value in facts(passage)}  # the last time counts
        kind, person, _ = understood(passage.question, ASKED)
        assert known[kind, person] == passage.answer
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
def test_everybody_has_one_of_each_kind_and_all_values_differ(seed, people, kinds, updates, combinations):
    updates = min(updates, people[0] * kinds - 1)
    (passage,) = corpora.passages(seed, 1, people=people, kinds=kinds, updates=updates, combinations=combinations)
    told = facts(passage)
    names, topics = {name for _, name, _ in told}, {kind for kind, _, _ in told}
    assert people[0] <= len(names) <= people[1]
    assert len(topics) == kinds
    times = Counter((kind, name) for kind, name, _ in told)
    assert sorted(times) == sorted((kind, name) for kind in topics for name in names)
    assert sorted(times.values()) == [1] * (len(times) - updates) + [2] * updates
    assert len({value for _, _, value in told}) == len(told)


def test_what_changes_is_told_first_and_changed_later():
    first = {(k, form) for k, kind in enumerate(KINDS) for form in map(pattern, kind.told)}
    changed_and_asked = 0
    for passage in corpora.passages(2, 200, people=(2, 2), kinds=2, updates=2):
        seen = set()
        for sentence in sentences(passage.text):
            kind, name, _ = understood(sentence, TOLD)
            told = any(k == kind and form.fullmatch(sentence) for k, form in first)
            assert told == ((kind, name) not in seen), sentence
            seen.add((kind, name))
        kind, name, _ = understood(passage.question, ASKED)
        changed_and_asked += sum(fact[:2] == (kind, name) for fact in facts(passage)) == 2
    assert 20 < changed_and_asked < 180


@pytest.mark.parametrize("updates", [0, 3])
def test_the_answer_stands_in_every_sentence_equally_often(updates):
    count, told = 2000, 6 + updates
    places = Counter()
    for passage in corpora.passages(3, count, people=(3, 3), kinds=2, updates=updates):
        places[passage.text.split(" ")[: passage.place].count(".")] += 1
    assert sorted(places) == list(range(told))
    expected = count / told
    surprise = sum((times - expected) ** 2 / expected for times in places.values())
    assert surprise < 30, places  # chi-square with 5 or 8 degrees of freedom: 1 in 5000 and less


def test_sentences_stand_in_any_order():
    """The second sentence is about the person of the first in 1 of 5 passages, about its kind in 2 of 5."""
    count, person, topic = 1000, 0, 0
    for passage in corpora.passages(6, count, people=(3, 3), kinds=2):
        first, second = facts(passage)[:2]
        person, topic = person + (first[1] == second[1]), topic + (first[0] == second[0])
    assert abs(person - count / 5) < 65  # five standard deviations
    assert abs(topic - 2 * count / 5) < 80


def test_the_number_of_people_is_drawn_from_its_range():
    sizes = Counter(len({name for _, name, _ in facts(made)}) for made in corpora.passages(8, 300, people=(2, 4)))
    assert sorted(sizes) == [2, 3, 4]
    assert min(sizes.values()) > 60


def test_the_answer_is_not_told_by_the_kind_of_words_alone():
    """Among those of its kind the answer is the first, the second and the third value equally often."""
    order = Counter()
    for passage in corpora.passages(4, 900, people=(3, 3), kinds=1):
        order[[value for _, _, value in facts(passage)].index(passage.answer)] += 1
    assert all(abs(order[i] - 300) < 75 for i in range(3)), order  # five standard deviations


# --- Combinations ----------------------------------------------------------------------------------------------------


def test_training_and_held_out_passages_share_words_but_no_combination():
    training = pairs(corpora.passages(0, 1500, people=(4, 4), kinds=6))
    held_out = pairs(corpora.passages(0, 600, people=(4, 4), kinds=6, combinations="held_out"))
    assert training & held_out == set()
    assert (len(training), len(held_out)) == (len(NAMES) * 6 * 12, len(NAMES) * 6 * 4)
    words = {value for kind in KINDS for value in kind.values}
    assert {name for name, _ in training} == {name for name, _ in held_out} == set(NAMES)
    assert {value for _, value in training} == words
    assert len({value for _, value in held_out}) > 80


def test_the_split_never_changes():
    """Figures of a held-out test are compared over years."""
    assert permitted("Mary", CITIES, "held_out") == ("Rome", "London", "Oslo", "Lima")
    assert permitted("John", CITIES, "held_out") == ("Paris", "Cairo", "Tokyo", "Boston")


def test_words_have_one_meaning():
    values = [value for kind in KINDS for value in kind.values]
    assert len({*values, *NAMES}) == len(values) + len(NAMES)
    forms = " ".join(form for kind in KINDS for form in (*kind.told, *kind.changed)).split()
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
    "a crowd": ({"people": (2, 9)}, "people: expected 2 <= smallest <= largest <= 8, got (2, 9). people is (smallest"),
    "backwards": ({"people": (3, 2)}, "people: expected 2 <= smallest <= largest <= 8, got (3, 2)."),
    "kinds": ({"kinds": 7}, "kinds: expected at most the 6 that there are, got 7. Take fewer."),
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
