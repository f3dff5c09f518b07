"""Translation by one fixed code, by attention under every rule, and by a Transformer: what does length cost each?

Question: does attention keep the quality of long translations, and does it find by itself which word translates which?
Command:  python -m experiments.translation
          python -m experiments.translation --pairs FILE.tsv --out FOLDER   # English-Chinese, English-French, …
Time:     32 minutes of CPU time.
Result:   with one code BLEU falls from 100 at 4 words to 46 at 12, the longest of training, and 22 at 20; with dot
          product attention, as many parameters, it is 99 and 82. Additive attention puts its largest weight on the word
          that is translated in 95 % of all cases up to 12 words; the tanh-free concat rule and the cosine divided by
          sqrt(d) cannot, and end below one code (43 and 40 at 12).

A GRU reads the source from both ends and a GRU writes the target; they see one code of the whole source, or attend to
its states by a rule. The Transformer reads the same sentences. Tests are sentences of held-out combinations, of the
training lengths and beyond them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from experiments import measure
from experiments.learn import Learned, Schooling, learn, parameters
from experiments.pair_models import RULES, TRANSFORMER, Sizes, pair_model, write
from experiments.translation.alignment import agreement, word_maps
from experiments.translation.sentences import CHINESE, Corpus
from jax_attention import data, training

MARGIN = 10
"""Words that a translation may have beyond the longest right one."""


@dataclass(frozen=True)
class Config:
    """Sentences, models, training.

    Args:
        names: the models, by the names of `pair_models.RULES`, and "Transformer".
        sentences: pairs of the grammar to learn from.
        words: the least and the most English words of a sentence in training.
        lengths: English words of the test sentences.
        each: test sentences of each length.
        vocabulary: words of each language that are known, of a file.
        width: of the recurrent models.
        transformer_width: of the Transformer, so that it has about as many parameters.
        multiple: lengths in a batch are rounded up to one of it; fewer shapes compile faster and pad more.
        schooling: steps and seeds.
        rounds: of the timing of one gradient.
    """

    names: tuple[str, ...] = (*RULES, TRANSFORMER)
    sentences: int = 20000
    words: tuple[int, int] = (3, 12)
    lengths: tuple[int, ...] = (4, 6, 8, 10, 12, 14, 16, 18, 20)
    each: int = 150
    vocabulary: int = 3000
    width: int = 96
    transformer_width: int = 64
    multiple: int = 8
    schooling: Schooling = field(default_factory=lambda: Schooling(steps=2000, learning_rate=3e-3))
    rounds: int = 20

    def sizes(self, name: str) -> Sizes:
        """Of one model."""
        return Sizes(width=self.transformer_width if name == TRANSFORMER else self.width)


SMALL = Config(
    names=("no attention", "additive", TRANSFORMER),
    sentences=3000,
    words=(3, 6),
    lengths=(4, 5, 6, 8, 10),
    each=40,
    width=48,
    transformer_width=48,
    multiple=16,
    schooling=Schooling(steps=300, learning_rate=5e-3, seeds=(0, 1)),
)


class Measured(NamedTuple):
    """One model over all seeds, and the cost of its gradient over that of the first model.

    `bleu` and `exact` are `[seeds, lengths]`, `agreements` `[seeds, layers, lengths]`; `watched` are the translations
    of the first shown sentence, `maps` where the words of each look, `[seeds, layers, T, S]`.
    """

    parameters: int
    losses: np.ndarray
    bleu: np.ndarray
    exact: np.ndarray
    watched: list[str]
    maps: list[np.ndarray] | None
    agreements: np.ndarray | None
    cost: measure.Cost | None = None


def run(config: Config, corpus: Corpus) -> dict[str, Measured]:
    """Train and measure every model."""
    batches = corpus.batches(config.multiple)
    found, first = {}, {}
    for name in config.names:
        words = corpus.source.vocab_size, corpus.target.vocab_size
        create = pair_model(name, *words, config.sizes(name), corpus.longest)
        learned = learn(create, batches, config.schooling)
        found[name], first[name] = measured(name, corpus, learned), learned[0].model
        line = ", ".join(f"{score:.0f}" for score in found[name].bleu.mean(axis=0))
        print(f"{name}: BLEU {line} at {', '.join(map(str, corpus.tests))} words", flush=True)
    batch = batches.batch(0, 0, config.schooling.batch_size)
    costs = measure.gradients(first, batch, config.names[0], config.rounds)
    return {name: one._replace(cost=costs[name]) for name, one in found.items()}


def measured(name: str, corpus: Corpus, seeds: Sequence[Learned]) -> Measured:
    """Quality by length, and where the words look."""
    attends, written = name != "no attention", [translations(one.model, corpus) for one in seeds]
    maps = [word_maps(one.model, corpus) for one in seeds] if attends else []

    def by_length(judge: Any) -> np.ndarray:
        return np.array([[judge(texts[n], pairs) for n, pairs in corpus.tests.items()] for _, texts in written])

    return Measured(
        parameters(seeds[0].model),
        np.stack([one.losses for one in seeds]),
        by_length(quality),
        by_length(exact),
        [watched for watched, _ in written],
        [np.stack(of_seeds) for of_seeds in zip(*maps, strict=True)] if attends else None,
        np.stack([agreement(one.model, corpus) for one in seeds]) if attends and corpus.generated else None,
    )


def translations(model: Any, corpus: Corpus) -> tuple[str, dict[int, list[str]]]:
    """Of the first shown sentence, and of all test sentences, by length."""
    tests = [pair for pairs in corpus.tests.values() for pair in pairs]
    watched, *texts = translated(model, corpus, [pair.source for pair in (corpus.shown[0], *tests)])
    rest = iter(texts)
    return watched, {n: [next(rest) for _ in pairs] for n, pairs in corpus.tests.items()}


def translated(model: Any, corpus: Corpus, sentences: Sequence[str]) -> list[str]:
    """Greedy translations, words with spaces between them."""
    sources = corpus.source.encode_many(sentences)
    written = write(model, sources, start=corpus.start, stop=corpus.stop, most=corpus.longest_target + MARGIN)
    return [corpus.target.decode(np.array(ids, np.int32)) for ids in written]


def quality(texts: Sequence[str], pairs: Sequence[data.Pair]) -> float:
    """BLEU: of Chinese by characters, as sacrebleu parts it, of other languages by our words."""
    wanted = [pair.target for pair in pairs]
    return training.bleu(texts, wanted, tokenize="zh" if CHINESE.search("".join(wanted)) else "none")


def exact(texts: Sequence[str], pairs: Sequence[data.Pair]) -> float:
    """The share of translations that are right to the last word."""
    return training.exact_match(texts, [pair.target for pair in pairs])
