"""English sentences and their Chinese translations from a small grammar, aligned word by word."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

from experiments.corpora import grammar_words as table
from experiments.corpora.grammar_phrases import (
    COORDINATORS,
    SUBORDINATORS,
    Fact,
    FactIndex,
    Phrase,
    PhraseGenerator,
    arrange,
    index_facts,
)
from jax_attention.core.checks import check_int, fail_unless
from jax_attention.data.pairs import Pair, hash_fraction

COMBINATIONS = ("training", "held_out", "all")
MIN_CONTINUATION = 4
"""Number of English words in the shortest continuation of a sentence: a conjunction and a clause of three words."""
MAX_CLAUSE_DRAWS = 200
"""Clauses to draw before a sentence of the wrong length is abandoned and started again."""
FUNCTION_WORDS = ("the", "an", "of", "that", "do", "does", "not", "can", "must", "and", "but", "because", "when")
PARTICLES = ("的", "不", "能", "必须", "吗", "而且", "但是", "因为", "所以", "当", "时候")


@dataclass(frozen=True)
class Grammar:
    """A small grammar of English and Chinese, with some combinations of words held out by a hash.

        (subject, verb, object) is held out  =  sha256(subject verb object) / 2^256 < held_out

    English and Chinese differ in word order (times and places, owners, relative clauses, reasons), English verbs agree
    with their subjects, and Chinese nouns have classifiers. Training keeps at least one combination of each subject
    with each of its verbs, and of each verb with each of its objects, whatever the hashes. So in held-out sentences
    only the combination of all three words is new.

    Args:
        held_out: share of the combinations to hold out, at least 0 and below 1; 0 holds out none.

    Raises:
        ValueError: if the share is out of range.

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
        """Draw sentences, a pure function of the arguments; a smaller count gives the first of them.

        Args:
            seed: seed of the draws, from 0.
            count: number of sentences.
            words: (least, most) words of an English sentence, all numbers equally likely; at least 3.
            combinations: "training" or "held_out": the set that every combination in the sentences is from; held-out
                sentences have at least one. "all" takes both sets.

        Returns:
            A list of `Pair` with alignments. `note` lists the combinations, such as "Tom chase Jerry; dog bite Anna".
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
        generator = PhraseGenerator(rng, _fact_index(self, combinations))
        with_object = combinations == "held_out"
        return [_draw_sentence(generator, rng.randint(least, most), with_object) for _ in range(count)]

    def triples(self, combinations: str = "all") -> tuple[Fact, ...]:
        """The combinations of subject, verb and object in a set: "training", "held_out" or "all"."""
        fail_unless(
            combinations in COMBINATIONS,
            f"combinations: expected {', '.join(map(repr, COMBINATIONS))}, got {combinations!r}.",
        )
        if combinations == "all":
            return _possible_facts()
        held_out = _held_out_facts(float(self.held_out))
        chosen = tuple(fact for fact in _possible_facts() if (fact in held_out) == (combinations == "held_out"))
        fail_unless(
            len(chosen) > 0,
            f"combinations: expected a grammar that holds some out, got held_out={self.held_out}. Raise it: "
            "Grammar(held_out=0.1).",
        )
        return chosen

    @property
    def source_words(self) -> tuple[str, ...]:
        """All English words that sentences may contain, sorted."""
        words = {*FUNCTION_WORDS, *(form for noun in table.NOUNS.values() for form in noun[1:3])}
        words |= {form for verb in table.VERBS.values() for form in verb[:2]}
        words |= {entry.word for entry in (*table.ADJECTIVES, *table.DETERMINERS, *table.POSSESSIVES)}
        return tuple(sorted(words | {text for phrase in (*table.PLACES, *table.TIMES) for text in phrase[0]}))

    @property
    def target_words(self) -> tuple[str, ...]:
        """All Chinese words that sentences may contain, sorted."""
        words = {table.COMMA, *PARTICLES}
        words |= {form for noun in table.NOUNS.values() for form in noun[3:] if form}
        words |= {verb.chinese for verb in table.VERBS.values()}
        entries = (*table.ADJECTIVES, *table.DETERMINERS, *table.POSSESSIVES)
        words |= {text for entry in entries for text in entry.chinese}
        words |= {text for phrase in (*table.PLACES, *table.TIMES) for text in phrase[1]}
        return tuple(sorted(words - {table.CLASSIFIER}))


@functools.lru_cache(maxsize=8)
def _fact_index(grammar: Grammar, combinations: str) -> FactIndex:
    return index_facts(grammar.triples(combinations))


@functools.cache
def _possible_facts() -> tuple[Fact, ...]:
    """All combinations that the tables allow, except those of a subject with itself."""
    return tuple(
        Fact(subject, verb.word, target)
        for verb in table.VERBS.values()
        if verb.objects != "-"
        for subject in table.nouns_of(verb.subjects)
        for target in table.nouns_of(verb.objects)
        if target not in (table.FIRST_PERSON if subject in table.FIRST_PERSON else (subject,))
    )


@functools.lru_cache(maxsize=4)
def _held_out_facts(fraction: float) -> frozenset[Fact]:
    """Combinations with a hash below `fraction`, except the one with the largest hash of each (subject, verb) and of
    each (verb, object), which training keeps."""
    hashes = {fact: hash_fraction(" ".join(fact)) for fact in _possible_facts()}
    kept: dict[tuple[str, str, str], Fact] = {}
    for fact in sorted(hashes, key=hashes.__getitem__):
        kept["subject", fact.subject, fact.verb] = kept["object", fact.verb, fact.object] = fact
    return frozenset(fact for fact in hashes.keys() - set(kept.values()) if hashes[fact] < fraction)


def _draw_sentence(generator: PhraseGenerator, word_count: int, with_object: bool) -> Pair:
    """A sentence of exactly `word_count` English words, whose first clause has an object if `with_object`."""
    while True:
        clauses, facts, left = [], [], word_count
        for _ in range(MAX_CLAUSE_DRAWS):
            first = not clauses
            question = first and generator.rng.random() < 0.1
            clause = generator.clause((with_object and first) or generator.rng.random() < 0.75, question)
            rest = left - len(clause.phrase.english) - (not first)
            if rest == 0 or (rest >= MIN_CONTINUATION and not question):
                clauses.append(clause.phrase)
                facts += clause.facts
                left = rest
            if left == 0:
                sentence = _join_clauses(generator.rng, clauses)
                note = "; ".join(map(" ".join, facts))
                return Pair(" ".join(sentence.english), " ".join(sentence.chinese), sentence.links, note)


def _join_clauses(rng: random.Random, clauses: list[Phrase]) -> Phrase:
    """Clauses joined by conjunctions; a subordinate clause is never subordinate to another subordinate clause."""
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
