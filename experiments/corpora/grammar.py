"""English sentences and their Chinese translations from a small grammar, with who translates whom."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

from experiments.corpora import grammar_words as table
from experiments.corpora.grammar_phrases import (
    COORDINATORS,
    SUBORDINATORS,
    Fact,
    Known,
    Phrase,
    Speaker,
    arrange,
    known,
)
from jax_attention.core.checks import check_int, fail_unless
from jax_attention.data.pairs import Pair, hash_fraction

COMBINATIONS = ("training", "held_out", "all")
NEXT = 4
"""Words that must be left for one more clause: a conjunction and a clause of three."""
TRIES = 200
"""Clauses to draw before a sentence is begun anew."""
FUNCTION_WORDS = ("the", "an", "of", "that", "do", "does", "not", "can", "must", "and", "but", "because", "when")
PARTICLES = ("的", "不", "能", "必须", "吗", "而且", "但是", "因为", "所以", "当", "时候")


@dataclass(frozen=True)
class Grammar:
    """A small grammar of English and Chinese, and a hash that holds some of its combinations out.

        (subject, verb, object) is held out  =  sha256(subject verb object) / 2^256 < held_out

    English and Chinese differ in the order of words (times and places, owners, relative clauses, reasons), English
    verbs agree with their subjects, Chinese nouns choose their classifiers. Of each subject with a verb, and of each
    verb with an object, at least one combination is kept for training whatever its hash: nothing held out is new but
    the combination of three.

    Args:
        held_out: the share of combinations that training never sees, from 0 to 1.

    Returns:
        A frozen value.

    Raises:
        ValueError: if the share is not between 0 and 1; 0 holds nothing out.

    Example:
        >>> from experiments import corpora
        >>> pair = corpora.Grammar().pairs(seed=77, count=1, words=(7, 7))[0]
        >>> pair.source, pair.target, pair.note
        ('two girls catch three cats every morning', '两 个 女孩 每 天 早上 抓 三 只 猫', 'girl catch cat')
        >>> pair.alignment
        (0, -1, 1, 5, -1, 6, 2, 3, -1, 4)

    Reference:
        Lake, Baroni (2018), "Generalization without systematicity", https://arxiv.org/abs/1711.00350, for new
        combinations of known words.
    """

    held_out: float = 0.1

    def __post_init__(self) -> None:
        fail_unless(
            not isinstance(self.held_out, bool) and isinstance(self.held_out, (int, float)) and 0 <= self.held_out < 1,
            f"held_out: expected a number from 0 to below 1, got {self.held_out!r}. 0.1 holds out a tenth.",
        )

    def pairs(
        self, seed: int, count: int, words: tuple[int, int] = (4, 12), combinations: str = "training"
    ) -> list[Pair]:
        """Draw sentences; the same arguments give the same ones, and a smaller count the first of them.

        Args:
            seed: from 0.
            count: how many.
            words: the least and the most words of the English sentence, each number in between as likely; at least 3.
            combinations: "training" or "held_out": every fact with an object is of this kind, and of those held out
                there is at least one in a sentence; or "all".

        Returns:
            A list of `Pair` with alignments; `note` lists the facts with an object, "Tom chase Jerry; …".
        """
        check_int("seed", seed, 0, "Seeds count from 0.")
        check_int("count", count, 0, "It is the number of sentences.")
        fail_unless(
            isinstance(words, tuple) and len(words) == 2,
            f"words: expected two numbers, (least, most), got {words!r}. For n words take (n, n).",
            TypeError,
        )
        least = check_int("words", words[0], 3, "The shortest sentence has 3 words.")
        most = check_int("words", words[1], least, "It is (least, most).")
        rng = random.Random(int(seed))
        speaker = Speaker(rng, _known(self, combinations))
        certain = combinations == "held_out"
        return [_sentence(speaker, rng.randint(least, most), certain) for _ in range(count)]

    def triples(self, combinations: str = "all") -> tuple[Fact, ...]:
        """The combinations of subject, verb and object that sentences of a kind may hold."""
        fail_unless(
            combinations in COMBINATIONS,
            f"combinations: expected {', '.join(map(repr, COMBINATIONS))}, got {combinations!r}.",
        )
        if combinations == "all":
            return _possible()
        held_out = _held_out(float(self.held_out))
        found = tuple(fact for fact in _possible() if (fact in held_out) == (combinations == "held_out"))
        fail_unless(
            len(found) > 0,
            f"combinations: expected a grammar that holds some out, got held_out={self.held_out}. Raise it: "
            "Grammar(held_out=0.1).",
        )
        return found

    @property
    def source_words(self) -> tuple[str, ...]:
        """Every English word that sentences may hold, sorted."""
        found = {*FUNCTION_WORDS, *(form for noun in table.THINGS.values() for form in noun[1:3])}
        found |= {form for verb in table.ACTIONS.values() for form in verb[:2]}
        found |= {entry.word for entry in (*table.QUALITIES, *table.ARTICLES, *table.OWNERS)}
        return tuple(sorted(found | {text for phrase in (*table.WHERE, *table.WHEN) for text in phrase[0]}))

    @property
    def target_words(self) -> tuple[str, ...]:
        """Every Chinese word that sentences may hold, sorted."""
        found = {table.COMMA, *PARTICLES}
        found |= {form for noun in table.THINGS.values() for form in noun[3:] if form}
        found |= {verb.chinese for verb in table.ACTIONS.values()}
        found |= {text for entry in (*table.QUALITIES, *table.ARTICLES, *table.OWNERS) for text in entry.chinese}
        found |= {text for phrase in (*table.WHERE, *table.WHEN) for text in phrase[1]}
        return tuple(sorted(found - {table.CLASSIFIER}))


@functools.lru_cache(maxsize=8)
def _known(grammar: Grammar, combinations: str) -> Known:
    return known(grammar.triples(combinations))


@functools.cache
def _possible() -> tuple[Fact, ...]:
    """Everybody who may do something, to all but themselves."""
    return tuple(
        Fact(subject, verb.word, target)
        for verb in table.ACTIONS.values()
        if verb.objects != "-"
        for subject in table.of_group(verb.subjects)
        for target in table.of_group(verb.objects)
        if target not in (table.SPEAKER if subject in table.SPEAKER else (subject,))
    )


@functools.lru_cache(maxsize=4)
def _held_out(wanted: float) -> frozenset[Fact]:
    """By hash, but of each (subject, verb) and each (verb, object) the last in the order of hashes stays."""
    shares = {fact: hash_fraction(" ".join(fact)) for fact in _possible()}
    kept: dict[tuple[str, str, str], Fact] = {}
    for fact in sorted(shares, key=shares.__getitem__):
        kept["by", fact.subject, fact.verb] = kept["to", fact.verb, fact.object] = fact
    return frozenset(fact for fact in shares.keys() - set(kept.values()) if shares[fact] < wanted)


def _sentence(speaker: Speaker, goal: int, certain: bool) -> Pair:
    """A sentence of exactly `goal` English words; `certain`: with a fact that has an object."""
    while True:
        clauses, facts, left = [], [], goal
        for _ in range(TRIES):
            first = not clauses
            question = first and speaker.rng.random() < 0.1
            said = speaker.clause((certain and first) or speaker.rng.random() < 0.75, question)
            rest = left - len(said.phrase.english) - (not first)
            if rest == 0 or (rest >= NEXT and not question):
                clauses.append(said.phrase)
                facts += said.facts
                left = rest
            if left == 0:
                whole = _joined(speaker.rng, clauses)
                note = "; ".join(map(" ".join, facts))
                return Pair(" ".join(whole.english), " ".join(whole.chinese), whole.links, note)


def _joined(rng: random.Random, clauses: list[Phrase]) -> Phrase:
    """Clauses with a conjunction between each two of them. A subordinate clause has none of its own."""
    units, compound = clauses[:1], False
    for clause in clauses[1:]:
        if compound or rng.random() < 0.5:
            units += [rng.choice(COORDINATORS), clause]
            compound = False
        else:
            opening, closing = rng.choice(SUBORDINATORS)
            units[-1] = arrange((units[-1], opening, clause, closing), (1, 2, 3, 0))
            compound = True
    return arrange(units, range(len(units)))
