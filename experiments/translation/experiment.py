"""Config of the experiment, training of every model, and the quality of its translations by length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from experiments import measure
from experiments.seed_training import TrainedModel, TrainingConfig, count_parameters, train_seeds
from experiments.seq2seq_models import RULES, TRANSFORMER, Sizes, greedy_decode, seq2seq_model
from experiments.translation.alignment import agreement, word_maps
from experiments.translation.corpus import CHINESE, Corpus
from jax_attention import data, training

EXTRA_WORDS = 10
"""Words that a translation may have more than the longest reference."""


@dataclass(frozen=True)
class Config:
    """Sentences, models, training.

    Args:
        names: names of the models, of `seq2seq_models.RULES` and "Transformer".
        sentences: number of generated training pairs.
        words: smallest and largest number of English words of a training sentence.
        lengths: numbers of English words of the test sentences.
        each: number of test sentences of each length.
        vocabulary: number of known words of each language, for sentences of a file.
        width: width of the recurrent models.
        transformer_width: width of the Transformer, chosen for about as many parameters.
        multiple: lengths in a batch are rounded up to a multiple of it; fewer shapes compile faster and pad more.
        schooling: steps, rate, seeds of the training.
        rounds: rounds of timing of one gradient.
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
    schooling: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=2000, learning_rate=3e-3))
    rounds: int = 20

    def sizes(self, name: str) -> Sizes:
        """Sizes of the model with this name."""
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
    schooling=TrainingConfig(steps=300, learning_rate=5e-3, seeds=(0, 1)),
)


class ModelResults(NamedTuple):
    """Results of one model over all seeds, and the cost of its gradient relative to the first model.

    losses: `[seeds, steps]`.
    bleu, exact: `[seeds, lengths]`.
    shown_translations: translation of the first shown sentence, by seed.
    maps: attention weights for each shown sentence, `[seeds, layers, T, S]`; None without attention.
    agreements: share of target words that look at the word they translate, `[seeds, layers, lengths]`; None without
        attention or without known alignments.
    """

    parameters: int
    losses: np.ndarray
    bleu: np.ndarray
    exact: np.ndarray
    shown_translations: list[str]
    maps: list[np.ndarray] | None
    agreements: np.ndarray | None
    cost: measure.Cost | None = None


def run(config: Config, corpus: Corpus) -> dict[str, ModelResults]:
    """Train and measure every model."""
    batches = corpus.batches(config.multiple)
    results, first_seed = {}, {}
    for name in config.names:
        words = corpus.source.vocab_size, corpus.target.vocab_size
        create = seq2seq_model(name, *words, config.sizes(name), corpus.longest)
        trained = train_seeds(create, batches, config.schooling)
        results[name], first_seed[name] = evaluate_model(name, corpus, trained), trained[0].model
        line = ", ".join(f"{score:.0f}" for score in results[name].bleu.mean(axis=0))
        print(f"{name}: BLEU {line} at {', '.join(map(str, corpus.tests))} words", flush=True)
    batch = batches.batch(0, 0, config.schooling.batch_size)
    costs = measure.gradient_costs(first_seed, batch, config.names[0], config.rounds)
    return {name: result._replace(cost=costs[name]) for name, result in results.items()}


def evaluate_model(name: str, corpus: Corpus, trained: Sequence[TrainedModel]) -> ModelResults:
    """Measure translation quality by length, and where the words look."""
    attends = name != "no attention"
    translations = [translate_tests(run.model, corpus) for run in trained]
    maps = [word_maps(run.model, corpus) for run in trained] if attends else []

    def by_length(metric: Callable[..., float]) -> np.ndarray:
        return np.array([[metric(texts[n], pairs) for n, pairs in corpus.tests.items()] for _, texts in translations])

    return ModelResults(
        count_parameters(trained[0].model),
        np.stack([run.losses for run in trained]),
        by_length(bleu),
        by_length(exact_match),
        [shown for shown, _ in translations],
        [np.stack(of_seeds) for of_seeds in zip(*maps, strict=True)] if attends else None,
        np.stack([agreement(run.model, corpus) for run in trained]) if attends and corpus.generated else None,
    )


def translate_tests(model: Any, corpus: Corpus) -> tuple[str, dict[int, list[str]]]:
    """Translations of the first shown sentence, and of all test sentences, by length."""
    tests = [pair for pairs in corpus.tests.values() for pair in pairs]
    shown, *texts = translate(model, corpus, [pair.source for pair in (corpus.shown[0], *tests)])
    remaining = iter(texts)
    return shown, {n: [next(remaining) for _ in pairs] for n, pairs in corpus.tests.items()}


def translate(model: Any, corpus: Corpus, sentences: Sequence[str]) -> list[str]:
    """Greedy translations, words with spaces between them."""
    sources = corpus.source.encode_many(sentences)
    limit = corpus.longest_target + EXTRA_WORDS
    rows = greedy_decode(model, sources, start=corpus.start, stop=corpus.stop, max_words=limit)
    return [corpus.target.decode(np.array(ids, np.int32)) for ids in rows]


def bleu(texts: Sequence[str], pairs: Sequence[data.Pair]) -> float:
    """BLEU of translations: Chinese split into characters by sacrebleu, other languages into the corpus's words."""
    targets = [pair.target for pair in pairs]
    return training.bleu(texts, targets, tokenize="zh" if CHINESE.search("".join(targets)) else "none")


def exact_match(texts: Sequence[str], pairs: Sequence[data.Pair]) -> float:
    """Share of translations that are right to the last word."""
    return training.exact_match(texts, [pair.target for pair in pairs])
