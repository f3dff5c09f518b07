"""Random phrases in English and Chinese at once, aligned word by word."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from experiments.corpora.grammar_words import (
    ADJECTIVES,
    CLASSIFIER,
    COMMA,
    DETERMINERS,
    NOUNS,
    PLACES,
    POSSESSIVES,
    THIRD_PERSON,
    TIMES,
    VERBS,
    Determiner,
    Noun,
    nouns_of,
)


class Fact(NamedTuple):
    """Who does what to whom, by the base forms of the words; `object` is "" for a verb without one."""

    subject: str
    verb: str
    object: str = ""


class Phrase(NamedTuple):
    """Words in both languages; `links[i]` is the index of the English word that Chinese word i translates, or -1."""

    english: tuple[str, ...] = ()
    chinese: tuple[str, ...] = ()
    links: tuple[int, ...] = ()


class Constituent(NamedTuple):
    """A phrase, whether it is third person singular (so that a verb takes "-s"), and the facts that it states."""

    phrase: Phrase
    third_person: bool = False
    facts: tuple[Fact, ...] = ()


EMPTY = Phrase()
THE = Phrase(("the",))
OF = Phrase(("of",), ("的",), (0,))
THAT = Phrase(("that",), ("的",), (0,))
COORDINATORS = (Phrase(("and",), (COMMA, "而且"), (-1, 0)), Phrase(("but",), (COMMA, "但是"), (-1, 0)))
SUBORDINATORS = (
    (Phrase(("because",), ("因为",), (0,)), Phrase((), (COMMA, "所以"), (-1, -1))),
    (Phrase(("when",), ("当",), (0,)), Phrase((), ("的", "时候", COMMA), (-1, -1, -1))),
)
"""Words before and after the second of two clauses, which comes first in Chinese."""


def arrange(parts: Sequence[Phrase], order: Sequence[int]) -> Phrase:
    """Concatenate phrases: in English in the order of `parts`, in Chinese in the order of the indices `order`."""
    starts, english = [], ()
    for part in parts:
        starts.append(len(english))
        english += part.english
    chinese = tuple(word for i in order for word in parts[i].chinese)
    links = tuple(link if link < 0 else starts[i] + link for i in order for link in parts[i].links)
    return Phrase(english, chinese, links)


def word(english: str, *chinese: str) -> Phrase:
    """Phrase of one English word; the first of the Chinese words translates it, the others are its particles."""
    return Phrase((english,), chinese, (0, *[-1] * (len(chinese) - 1))[: len(chinese)])


class FactIndex(NamedTuple):
    """Facts with an object that sentences may state, by verb and by subject."""

    verbs: tuple[str, ...]
    by_verb: dict[str, list[Fact]]
    by_subject: dict[str, list[Fact]]


def index_facts(facts: Iterable[Fact]) -> FactIndex:
    """Index facts by verb and by subject."""
    by_verb: dict[str, list[Fact]] = {}
    by_subject: dict[str, list[Fact]] = {}
    for fact in facts:
        by_verb.setdefault(fact.verb, []).append(fact)
        by_subject.setdefault(fact.subject, []).append(fact)
    return FactIndex(tuple(by_verb), by_verb, by_subject)


@dataclass(frozen=True)
class PhraseGenerator:
    """Draws random phrases that state indexed facts."""

    rng: random.Random
    fact_index: FactIndex

    def clause(self, transitive: bool, question: bool) -> Constituent:
        """A main clause: subject, optional auxiliary, verb, optional object, place and time."""
        rng = self.rng
        fact = self._draw_fact(transitive)
        verb, action = VERBS[fact.verb], VERBS[fact.verb].aspect == "action"
        subject = self.noun_phrase(NOUNS[fact.subject])
        object_ = self.noun_phrase(NOUNS[fact.object], as_object=True) if fact.object else Constituent(EMPTY)
        # Not after a relative clause: who is in the park in "sees the cat that chases Tom in the park"?
        unambiguous = action and len(object_.facts) == 0
        place = Phrase(*rng.choice(PLACES)) if unambiguous and rng.random() < 0.3 else EMPTY
        time = Phrase(*rng.choice(TIMES)) if unambiguous and rng.random() < 0.3 else EMPTY
        facts = (*([fact] if fact.object else []), *subject.facts, *object_.facts)
        if question:
            auxiliary = word("does" if subject.third_person else "do", "吗")
            parts = (auxiliary, subject.phrase, word(verb.word, verb.chinese), object_.phrase, place, time)
            return Constituent(arrange(parts, (1, 5, 4, 2, 3, 0)), facts=facts)
        auxiliary = self._auxiliary(subject.third_person, action, object_.phrase.english[:1])
        form = verb.third_person if subject.third_person and not auxiliary.english else verb.word
        parts = (subject.phrase, auxiliary, word(form, verb.chinese), object_.phrase, place, time)
        return Constituent(arrange(parts, (0, 5, 1, 4, 2, 3)), facts=facts)

    def noun_phrase(self, noun: Noun, as_object: bool = False, depth: int = 0) -> Constituent:
        """A noun phrase: a name or pronoun, or a noun with determiner, adjective, owner or relative clause."""
        if noun.kind in ("name", "pronoun"):
            text = noun.second_form if as_object else noun.word
            return Constituent(word(text, noun.chinese), noun.kind == "name" or noun.word in THIRD_PERSON)
        draw = self.rng.random()
        if draw < 0.15 and depth < 2 and noun.kind != "person":
            return self._with_owner(noun, depth)
        if draw < 0.3 and depth == 0 and noun.word in self.fact_index.by_subject:
            return self._with_relative_clause(noun)
        number, determiner = self._determiner(noun)
        name = noun.word if number == "singular" else noun.second_form
        parts = (determiner, self._adjective(noun), word(name, noun.chinese))
        phrase = arrange(parts, (0, 1, 2))
        if phrase.english[0] == "a" and phrase.english[1][0] in "aeiou":
            phrase = phrase._replace(english=("an", *phrase.english[1:]))
        return Constituent(phrase, number == "singular")

    def _draw_fact(self, transitive: bool) -> Fact:
        if transitive:
            return self.rng.choice(self.fact_index.by_verb[self.rng.choice(self.fact_index.verbs)])
        verb = self.rng.choice(INTRANSITIVE_VERBS)
        return Fact(self.rng.choice(nouns_of(verb.subjects)), verb.word)

    def _auxiliary(self, third_person: bool, action: bool, object_begins: tuple[str, ...]) -> Phrase:
        """Negation, "can", "must" or nothing. No negation before "a" or "some": "does not need some" is no English."""
        draw = self.rng.random()
        if draw < 0.15 and object_begins not in (("a",), ("an",), ("some",)):
            return Phrase(("does" if third_person else "do", "not"), ("不",), (1,))
        if action and 0.15 < draw < 0.3:
            return word("can", "能") if draw < 0.22 else word("must", "必须")
        return EMPTY

    def _with_owner(self, noun: Noun, depth: int) -> Constituent:
        """A noun with its owner, "the dog of Tom": 汤姆 的 狗."""
        owner = self.noun_phrase(NOUNS[self.rng.choice(POSSIBLE_OWNERS)], as_object=True, depth=depth + 1)
        name, singular = self._number(noun)
        parts = (THE, self._adjective(noun), name, OF, owner.phrase)
        return Constituent(arrange(parts, (4, 3, 1, 2)), singular)

    def _with_relative_clause(self, noun: Noun) -> Constituent:
        """A noun with a relative clause, "the cat that chases Tom": 追逐 汤姆 的 猫."""
        fact = self.rng.choice(self.fact_index.by_subject[noun.word])
        verb = VERBS[fact.verb]
        object_ = self.noun_phrase(NOUNS[fact.object], as_object=True, depth=1)
        name, singular = self._number(noun)
        verb_phrase = word(verb.third_person if singular else verb.word, verb.chinese)
        parts = (THE, self._adjective(noun), name, THAT, verb_phrase, object_.phrase)
        return Constituent(arrange(parts, (4, 5, 3, 1, 2)), singular, (fact, *object_.facts))

    def _number(self, noun: Noun) -> tuple[Phrase, bool]:
        """The noun in the singular or plural, and whether it is singular."""
        singular = self.rng.random() < 0.6
        return word(noun.word if singular else noun.second_form, noun.chinese), singular

    def _determiner(self, noun: Noun) -> tuple[str, Phrase]:
        """Grammatical number, and a determiner of that number."""
        draw = self.rng.random()
        if draw < 0.3:
            return self.rng.choice(("singular", "plural")), THE
        if draw < 0.45 and noun.kind != "person":
            owner = self.rng.choice(POSSESSIVES)
            return self.rng.choice(("singular", "plural")), Phrase((owner.word,), owner.chinese, (0, 0))
        return _apply_determiner(self.rng.choice(DETERMINERS), noun)

    def _adjective(self, noun: Noun) -> Phrase:
        if self.rng.random() < 0.7:
            return EMPTY
        adjective = self.rng.choice(ADJECTIVES_OF_KIND[noun.kind])
        return word(adjective.word, *adjective.chinese)


def _apply_determiner(determiner: Determiner, noun: Noun) -> tuple[str, Phrase]:
    """Number and phrase of a determiner, with the classifier of the noun in Chinese."""
    chinese = (noun.classifier if text == CLASSIFIER else text for text in determiner.chinese)
    return determiner.number, word(determiner.word, *chinese)


INTRANSITIVE_VERBS = tuple(verb for verb in VERBS.values() if verb.objects == "-")
POSSIBLE_OWNERS = tuple(name for kind in ("name", "person", "role") for name in nouns_of(kind))
ADJECTIVES_OF_KIND = {
    kind: tuple(adjective for adjective in ADJECTIVES if kind in adjective.kinds)
    for kind in {noun.kind for noun in NOUNS.values()}
}
