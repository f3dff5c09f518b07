"""Phrases in two languages at once: what is said in English, the same in Chinese, and which word is which."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from experiments.corpora.grammar_words import (
    ACTIONS,
    ARTICLES,
    CLASSIFIER,
    COMMA,
    OWNERS,
    QUALITIES,
    THINGS,
    THIRD_PERSON,
    WHEN,
    WHERE,
    Determiner,
    Noun,
    of_group,
)


class Fact(NamedTuple):
    """Who does what to whom, by the first forms of the words; `object` is "" where nothing is done to anything."""

    subject: str
    verb: str
    object: str = ""


class Phrase(NamedTuple):
    """Words of both languages; `links[i]` is the place of the English word that Chinese word i translates, or -1."""

    english: tuple[str, ...] = ()
    chinese: tuple[str, ...] = ()
    links: tuple[int, ...] = ()


class Said(NamedTuple):
    """A phrase, whether a verb beside it takes the form of "he chases", and the facts inside it."""

    phrase: Phrase
    third: bool = False
    facts: tuple[Fact, ...] = ()


NOTHING = Phrase()
THE = Phrase(("the",))
OF = Phrase(("of",), ("的",), (0,))
THAT = Phrase(("that",), ("的",), (0,))
COORDINATORS = (Phrase(("and",), (COMMA, "而且"), (-1, 0)), Phrase(("but",), (COMMA, "但是"), (-1, 0)))
SUBORDINATORS = (
    (Phrase(("because",), ("因为",), (0,)), Phrase((), (COMMA, "所以"), (-1, -1))),
    (Phrase(("when",), ("当",), (0,)), Phrase((), ("的", "时候", COMMA), (-1, -1, -1))),
)
"""What stands around the second of two clauses, which comes first in Chinese."""


def arrange(parts: Sequence[Phrase], order: Sequence[int]) -> Phrase:
    """Phrases one after the other in English, and in another order in Chinese."""
    starts, english = [], ()
    for part in parts:
        starts.append(len(english))
        english += part.english
    chinese = tuple(word for i in order for word in parts[i].chinese)
    links = tuple(link if link < 0 else starts[i] + link for i in order for link in parts[i].links)
    return Phrase(english, chinese, links)


def word(english: str, *chinese: str) -> Phrase:
    """One English word; the first of its Chinese words translates it, others are particles that it needs."""
    return Phrase((english,), chinese, (0, *[-1] * (len(chinese) - 1))[: len(chinese)])


class Known(NamedTuple):
    """Facts with an object, to speak of."""

    verbs: tuple[str, ...]
    by_verb: dict[str, list[Fact]]
    by_subject: dict[str, list[Fact]]


def known(facts: Iterable[Fact]) -> Known:
    """The facts where they are found by their verb and by their subject."""
    by_verb: dict[str, list[Fact]] = {}
    by_subject: dict[str, list[Fact]] = {}
    for fact in facts:
        by_verb.setdefault(fact.verb, []).append(fact)
        by_subject.setdefault(fact.subject, []).append(fact)
    return Known(tuple(by_verb), by_verb, by_subject)


@dataclass(frozen=True)
class Speaker:
    """Draws phrases that tell of what is known."""

    rng: random.Random
    known: Known

    def clause(self, transitive: bool, question: bool) -> Said:
        """A main clause: subject, perhaps an auxiliary, verb, perhaps an object, a place, a time."""
        rng = self.rng
        fact = self._fact(transitive)
        verb, action = ACTIONS[fact.verb], ACTIONS[fact.verb].manner == "action"
        subject = self.noun(THINGS[fact.subject])
        object_ = self.noun(THINGS[fact.object], as_object=True) if fact.object else Said(NOTHING)
        plain = action and len(object_.facts) == 0  # "sees the cat that chases Tom in the park": who is in the park?
        where = Phrase(*rng.choice(WHERE)) if plain and rng.random() < 0.3 else NOTHING
        when = Phrase(*rng.choice(WHEN)) if plain and rng.random() < 0.3 else NOTHING
        facts = (*([fact] if fact.object else []), *subject.facts, *object_.facts)
        if question:
            helper = word("does" if subject.third else "do", "吗")
            parts = (helper, subject.phrase, word(verb.word, verb.chinese), object_.phrase, where, when)
            return Said(arrange(parts, (1, 5, 4, 2, 3, 0)), facts=facts)
        helper = self._helper(subject.third, action, object_.phrase.english[:1])
        form = verb.third if subject.third and not helper.english else verb.word
        parts = (subject.phrase, helper, word(form, verb.chinese), object_.phrase, where, when)
        return Said(arrange(parts, (0, 5, 1, 4, 2, 3)), facts=facts)

    def noun(self, noun: Noun, as_object: bool = False, depth: int = 0) -> Said:
        """A name or pronoun as it is, a noun with what stands around it."""
        if noun.kind in ("name", "pronoun"):
            text = noun.other if as_object else noun.word
            return Said(word(text, noun.chinese), noun.kind == "name" or noun.word in THIRD_PERSON)
        draw = self.rng.random()
        if draw < 0.15 and depth < 2 and noun.kind != "person":
            return self._owned(noun, depth)
        if draw < 0.3 and depth == 0 and noun.word in self.known.by_subject:
            return self._doing(noun)
        number, article = self._article(noun)
        name = noun.word if number == "singular" else noun.other
        parts = (article, self._adjective(noun), word(name, noun.chinese))
        phrase = arrange(parts, (0, 1, 2))
        if phrase.english[0] == "a" and phrase.english[1][0] in "aeiou":
            phrase = phrase._replace(english=("an", *phrase.english[1:]))
        return Said(phrase, number == "singular")

    def _fact(self, transitive: bool) -> Fact:
        if transitive:
            return self.rng.choice(self.known.by_verb[self.rng.choice(self.known.verbs)])
        verb = self.rng.choice(INTRANSITIVE)
        return Fact(self.rng.choice(of_group(verb.subjects)), verb.word)

    def _helper(self, third: bool, action: bool, object_begins: tuple[str, ...]) -> Phrase:
        """Not, can, must, or nothing. Neither language says "does not need some"."""
        draw = self.rng.random()
        if draw < 0.15 and object_begins not in (("a",), ("an",), ("some",)):
            return Phrase(("does" if third else "do", "not"), ("不",), (1,))
        if action and 0.15 < draw < 0.3:
            return word("can", "能") if draw < 0.22 else word("must", "必须")
        return NOTHING

    def _owned(self, noun: Noun, depth: int) -> Said:
        """The dog of Tom: 汤姆 的 狗."""
        owner = self.noun(THINGS[self.rng.choice(OWNING)], as_object=True, depth=depth + 1)
        name, singular = self._number(noun)
        parts = (THE, self._adjective(noun), name, OF, owner.phrase)
        return Said(arrange(parts, (4, 3, 1, 2)), singular)

    def _doing(self, noun: Noun) -> Said:
        """The cat that chases Tom: 追逐 汤姆 的 猫."""
        fact = self.rng.choice(self.known.by_subject[noun.word])
        verb = ACTIONS[fact.verb]
        object_ = self.noun(THINGS[fact.object], as_object=True, depth=1)
        name, singular = self._number(noun)
        does = word(verb.third if singular else verb.word, verb.chinese)
        parts = (THE, self._adjective(noun), name, THAT, does, object_.phrase)
        return Said(arrange(parts, (4, 5, 3, 1, 2)), singular, (fact, *object_.facts))

    def _number(self, noun: Noun) -> tuple[Phrase, bool]:
        singular = self.rng.random() < 0.6
        return word(noun.word if singular else noun.other, noun.chinese), singular

    def _article(self, noun: Noun) -> tuple[str, Phrase]:
        draw = self.rng.random()
        if draw < 0.3:
            return self.rng.choice(("singular", "plural")), THE
        if draw < 0.45 and noun.kind != "person":
            owner = self.rng.choice(OWNERS)
            return self.rng.choice(("singular", "plural")), Phrase((owner.word,), owner.chinese, (0, 0))
        return _determined(self.rng.choice(ARTICLES), noun)

    def _adjective(self, noun: Noun) -> Phrase:
        if self.rng.random() < 0.7:
            return NOTHING
        found = self.rng.choice(FITTING[noun.kind])
        return word(found.word, *found.chinese)


def _determined(determiner: Determiner, noun: Noun) -> tuple[str, Phrase]:
    chinese = (noun.classifier if text == CLASSIFIER else text for text in determiner.chinese)
    return determiner.number, word(determiner.word, *chinese)


INTRANSITIVE = tuple(verb for verb in ACTIONS.values() if verb.objects == "-")
OWNING = tuple(name for kind in ("name", "person", "role") for name in of_group(kind))
FITTING = {
    kind: tuple(quality for quality in QUALITIES if kind in quality.kinds)
    for kind in {noun.kind for noun in THINGS.values()}
}
