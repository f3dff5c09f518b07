"""What is translated: sentences of the grammar, or those of a file; longer ones than in training are for tests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import corpora
from jax_attention import data

WATCHED = data.Pair("Tom chases Jerry", "汤姆 追逐 杰瑞", (0, 1, 2))
"""Of the grammar: three words that stand in the same order in both languages."""
START, STOP, UNKNOWN = "<s>", "</s>", "<unknown>"
CHINESE = re.compile(r"[\u3400-\u9fff]")
WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


@dataclass(frozen=True)
class Corpus:
    """Pairs to learn from, new pairs by the number of source words, and the words of both languages."""

    training: list[data.Pair]
    tests: dict[int, list[data.Pair]]
    source: data.Words
    target: data.Words
    shown: tuple[data.Pair, ...]
    """Whose maps are drawn; the translations of the first are printed."""

    @property
    def generated(self) -> bool:
        """Whether the grammar made them, and so knows the true alignment; those of a file may not be ours to repeat."""
        return self.shown[0].alignment is not None

    @property
    def start(self) -> int:
        """Stands before every target."""
        return self.target.vocabulary.index(START)

    @property
    def stop(self) -> int:
        """Follows every target."""
        return self.target.vocabulary.index(STOP)

    @property
    def longest(self) -> int:
        """The most words of a source, in training and in tests."""
        return max(length(pair) for pairs in (self.training, *self.tests.values()) for pair in pairs)

    @property
    def longest_target(self) -> int:
        """The most words of a translation in the tests."""
        return max(len(pair.target.split()) for pairs in self.tests.values() for pair in pairs)

    def batches(self, multiple: int) -> data.Seq2SeqBatches:
        """The training pairs as a source of batches; lengths are rounded up to a multiple."""
        sources = self.source.encode_many(pair.source for pair in self.training)
        targets = self.target.encode_many(pair.target for pair in self.training)
        return data.Seq2SeqBatches(sources, targets, start=self.start, stop=self.stop, multiple=multiple)


def of_grammar(count: int, words: tuple[int, int], lengths: Sequence[int], each: int) -> Corpus:
    """Generated sentences, tests of held-out combinations and of exactly these lengths; the watched one is never read
    in training."""
    grammar = corpora.Grammar()
    training = [pair for pair in grammar.pairs(0, count, words) if pair.source != WATCHED.source]
    tests = {n: grammar.pairs(1, each, (n, n), "held_out") for n in lengths}
    source, target = data.Words(grammar.source_words), data.Words((START, STOP, *grammar.target_words))
    near = [pair for n, pairs in tests.items() for pair in pairs if n <= words[1]]
    return Corpus(training, tests, source, target, (WATCHED, max(near, key=moved)))


def moved(pair: data.Pair) -> float:
    """How far words stand from the place of what they translate, on average."""
    return float(np.mean([abs(t - s) for t, s in enumerate(pair.alignment or ()) if s >= 0]))


def of_file(path: Path, words: tuple[int, int], longest: int, each: int, vocabulary: int) -> Corpus:
    """Sentences of a table parted by tabs, as `data.read_pairs` takes it.

    Held out are a tenth of the sources, with all their translations, and every pair above the training lengths. Words
    are lowered, punctuation stands alone, Chinese is parted into characters; words beyond the commonest are unknown.

    Raises:
        ValueError: if the file has no sentences of the training lengths, to learn from and to hold out.
    """
    pairs = [data.Pair(parted(pair.source), parted(pair.target)) for pair in data.read_pairs(path)]
    known, held_out = data.split_pairs(pairs)
    training = [pair for pair in known if words[0] <= length(pair) <= words[1]]
    tests: dict[int, list[data.Pair]] = {}
    for pair in [*held_out, *(pair for pair in known if length(pair) > words[1])]:
        if words[0] <= length(pair) <= longest and len(tests.setdefault(length(pair), [])) < each:
            tests[length(pair)].append(pair)
    near = [n for n in tests if n <= words[1]]
    if not training or not near:
        raise ValueError(
            f"words: expected sentences of {words[0]} to {words[1]} words, to train on and to hold out, got "
            f"{len(training)} and {sum(len(tests[n]) for n in near)} in {path.name}. Give other --config.words."
        )
    sources = commonest([pair.source for pair in training], vocabulary - 1)
    targets = commonest([pair.target for pair in training], vocabulary - 3)
    return Corpus(
        training,
        dict(sorted(tests.items())),
        data.Words((UNKNOWN, *sources), unknown=UNKNOWN),
        data.Words((START, STOP, UNKNOWN, *targets), unknown=UNKNOWN),
        (tests[max(near)][0],),
    )


def length(pair: data.Pair) -> int:
    """Words of the source."""
    return len(pair.source.split())


def parted(text: str) -> str:
    """Words with single spaces between them."""
    text = CHINESE.sub(lambda found: f" {found[0]} ", text.lower())
    return " ".join(WORD.findall(text))


def commonest(texts: Sequence[str], most: int) -> tuple[str, ...]:
    """The commonest words, sorted; equally common ones in the order of the alphabet."""
    counts = Counter(word for text in texts for word in text.split())
    return tuple(sorted(sorted(counts, key=lambda word: (-counts[word], word))[:most]))
