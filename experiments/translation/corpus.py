"""Sentence pairs of the grammar or of a file: training pairs, and test pairs of these and greater lengths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import corpora
from jax_attention import data

SHOWN = data.Pair("Tom chases Jerry", "汤姆 追逐 杰瑞", (0, 1, 2))
"""Sentence of the grammar with the same word order in both languages; it is never in the training set."""
START, STOP, UNKNOWN = "<s>", "</s>", "<unknown>"
CHINESE = re.compile(r"[\u3400-\u9fff]")
WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


@dataclass(frozen=True)
class Corpus:
    """Training pairs, test pairs by the number of source words, tokenizers of both languages, and shown pairs.

    The maps of the shown pairs are drawn, and the translations of the first are printed.
    """

    training: list[data.Pair]
    tests: dict[int, list[data.Pair]]
    source: data.Words
    target: data.Words
    shown: tuple[data.Pair, ...]

    @property
    def generated(self) -> bool:
        """Whether the pairs come from the grammar.

        Only then the true alignment is known, and sentences may be saved: those of a file may be under copyright.
        """
        return self.shown[0].alignment is not None

    @property
    def start(self) -> int:
        """Id of the token before every target."""
        return self.target.vocabulary.index(START)

    @property
    def stop(self) -> int:
        """Id of the token after every target."""
        return self.target.vocabulary.index(STOP)

    @property
    def longest(self) -> int:
        """Largest number of words of a source, in training and in tests."""
        return max(source_length(pair) for pairs in (self.training, *self.tests.values()) for pair in pairs)

    @property
    def longest_target(self) -> int:
        """Largest number of words of a translation in the tests."""
        return max(len(pair.target.split()) for pairs in self.tests.values() for pair in pairs)

    def batches(self, multiple: int) -> data.Seq2SeqBatches:
        """Batches of the training pairs; their lengths are rounded up to a multiple of `multiple`."""
        sources = self.source.encode_many(pair.source for pair in self.training)
        targets = self.target.encode_many(pair.target for pair in self.training)
        return data.Seq2SeqBatches(sources, targets, start=self.start, stop=self.stop, multiple=multiple)


def grammar_corpus(count: int, words: tuple[int, int], lengths: Sequence[int], each: int) -> Corpus:
    """Generated sentences; tests are held-out combinations of exactly these lengths.

    Shown are `SHOWN` and the test pair of a training length whose words move most.
    """
    grammar = corpora.Grammar()
    training = [pair for pair in grammar.pairs(0, count, words) if pair.source != SHOWN.source]
    tests = {n: grammar.pairs(1, each, (n, n), "held_out") for n in lengths}
    source, target = data.Words(grammar.source_words), data.Words((START, STOP, *grammar.target_words))
    near = [pair for n, pairs in tests.items() for pair in pairs if n <= words[1]]
    return Corpus(training, tests, source, target, (SHOWN, max(near, key=mean_displacement)))


def mean_displacement(pair: data.Pair) -> float:
    """Mean distance between the positions of a target word and of the word that it translates."""
    return float(np.mean([abs(t - s) for t, s in enumerate(pair.alignment or ()) if s >= 0]))


def file_corpus(path: Path, words: tuple[int, int], longest: int, each: int, vocabulary: int) -> Corpus:
    """Sentences of a tab-separated file, as `data.read_pairs` reads it.

    A tenth of the sources with all their translations are held out, and every pair above the training lengths. Words
    are lower-cased, punctuation marks and Chinese characters are words, and all but the most frequent are unknown.

    Raises:
        ValueError: if the file has no sentences of the training lengths to train on, or none to hold out.
    """
    pairs = [data.Pair(split_words(pair.source), split_words(pair.target)) for pair in data.read_pairs(path)]
    known, held_out = data.split_pairs(pairs)
    training = [pair for pair in known if words[0] <= source_length(pair) <= words[1]]
    tests: dict[int, list[data.Pair]] = {}
    for pair in [*held_out, *(pair for pair in known if source_length(pair) > words[1])]:
        if words[0] <= source_length(pair) <= longest and len(tests.setdefault(source_length(pair), [])) < each:
            tests[source_length(pair)].append(pair)
    near = [n for n in tests if n <= words[1]]
    if not training or not near:
        raise ValueError(
            f"words: expected sentences of {words[0]} to {words[1]} words, to train on and to hold out, got "
            f"{len(training)} and {sum(len(tests[n]) for n in near)} in {path.name}. Give other --config.words."
        )
    sources = most_frequent_words([pair.source for pair in training], vocabulary - 1)
    targets = most_frequent_words([pair.target for pair in training], vocabulary - 3)
    return Corpus(
        training,
        dict(sorted(tests.items())),
        data.Words((UNKNOWN, *sources), unknown=UNKNOWN),
        data.Words((START, STOP, UNKNOWN, *targets), unknown=UNKNOWN),
        (tests[max(near)][0],),
    )


def source_length(pair: data.Pair) -> int:
    """Number of words of the source."""
    return len(pair.source.split())


def split_words(text: str) -> str:
    """Lower-cased words with single spaces between them."""
    text = CHINESE.sub(lambda match: f" {match[0]} ", text.lower())
    return " ".join(WORD.findall(text))


def most_frequent_words(texts: Sequence[str], count: int) -> tuple[str, ...]:
    """The most frequent words, sorted; of equally frequent words the alphabetically first are taken."""
    counts = Counter(word for text in texts for word in text.split())
    return tuple(sorted(sorted(counts, key=lambda word: (-counts[word], word))[:count]))
