"""Config of the experiment, training of every model, its summaries and their scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import corpora
from experiments.seed_training import TrainingConfig, count_parameters, train_seeds
from experiments.seq2seq_models import TRANSFORMER, Sizes, greedy_decode, seq2seq_model
from experiments.summarisation.texts import MAX_WORDS, START, STOP, share_right_by_part, word_tokenizers
from jax_attention import data, models, training

ALIGNED = "additive"
"""The model whose alignment is drawn."""
NEW = "new reports"


@dataclass(frozen=True)
class Config:
    """Reports, models, and the training of each model."""

    facts: tuple[int, int] = (1, 2)
    fillers: tuple[int, int] = (0, 1)
    train: int = 20_000
    test: int = 200
    multiple: int = 28
    models: tuple[str, ...] = ("no attention", ALIGNED, TRANSFORMER)
    sizes: Sizes = field(default_factory=lambda: Sizes(width=48))
    recurrent: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=700, batch_size=32, learning_rate=5e-3)
    )
    transformer: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=700, batch_size=32, learning_rate=4e-3)
    )

    def schooling(self, name: str) -> TrainingConfig:
        """Training of the model with this name."""
        return self.transformer if name == TRANSFORMER else self.recurrent


SMALL = Config(
    facts=(1, 1),
    train=4000,
    test=50,
    models=("no attention", ALIGNED),
    sizes=Sizes(width=32),
    recurrent=TrainingConfig(steps=250, batch_size=16, learning_rate=8e-3, seeds=(0, 1)),
)


class AlignmentMap(NamedTuple):
    """Attention weights of one written summary, `[T, S]`, and the words on both axes."""

    weights: np.ndarray
    document: list[str]
    summary: list[str]


class ModelResults(NamedTuple):
    """Results of one kind of model: its summaries by set and seed, losses `[seeds, steps]`, size, seconds a step."""

    summaries: dict[str, list[list[str]]]
    losses: np.ndarray
    parameters: int
    seconds: float


class Results(NamedTuple):
    """Held-out reports by set, results by model, and one map of the model with additive attention, if it ran."""

    reports: dict[str, list[corpora.Report]]
    models: dict[str, ModelResults]
    alignment: AlignmentMap | None


def run(config: Config | None = None) -> Results:
    """Train every model from every seed, and let it summarise held-out reports."""
    config = Config() if config is None else config
    training_reports = generate_reports(config, 0, config.train)
    held_out = {
        NEW: generate_reports(config, 1, config.test),
        "new pairs": generate_reports(config, 2, config.test, "held_out"),
    }
    documents, summaries = word_tokenizers(training_reports)
    batches = data.Seq2SeqBatches(
        documents.encode_many(report.document for report in training_reports),
        summaries.encode_many(report.summary for report in training_reports),
        start=START,
        stop=STOP,
        multiple=config.multiple,
    )
    models, alignment = {}, None
    for name in config.models:
        create = seq2seq_model(name, documents.vocab_size, summaries.vocab_size, config.sizes)
        trained = train_seeds(create, batches, config.schooling(name))
        texts = {
            which: [summarise(run.model, documents, summaries, reports) for run in trained]
            for which, reports in held_out.items()
        }
        models[name] = ModelResults(
            texts,
            np.array([run.losses for run in trained]),
            count_parameters(trained[0].model),
            float(np.median([run.seconds for run in trained])),
        )
        if name == ALIGNED:
            document, summary = held_out[NEW][0].document, texts[NEW][0][0]
            alignment = alignment_map(trained[0].model, documents, summaries, document, summary)
    return Results(held_out, models, alignment)


def generate_reports(config: Config, seed: int, count: int, combinations: str = "training") -> list[corpora.Report]:
    """Reports of the config's sizes."""
    return corpora.reports(seed, count, facts=config.facts, fillers=config.fillers, combinations=combinations)


def summarise(model: Any, documents: data.Words, summaries: data.Words, reports: list[corpora.Report]) -> list[str]:
    """Greedy summaries of the reports."""
    sources = documents.encode_many(report.document for report in reports)
    rows = greedy_decode(model, list(sources), start=START, stop=STOP, max_words=MAX_WORDS)
    return [summaries.decode(row) for row in rows]


def alignment_map(
    model: Any, documents: data.Words, summaries: data.Words, document: str, summary: str
) -> AlignmentMap:
    """Weights over the document's words before the model writes each word of the summary."""
    source, target = documents.encode(document), summaries.encode(summary)
    shifted = np.concatenate([[START], target[:-1]]).astype(np.int32)
    out = jax.jit(lambda model: model(source, shifted, capture=models.Capture(cross="all")))(model)
    weights = np.asarray(out.captured.cross[0])[0]
    return AlignmentMap(weights, document.split(" "), summary.split(" "))


def score_summaries(texts: list[str], reports: list[corpora.Report]) -> dict[str, float]:
    """ROUGE, and the shares of summaries that are right: the whole text, and each part of it."""
    targets = [report.summary for report in reports]
    rouge = training.rouge(texts, targets, tokenize="spaces")
    exact = training.exact_match(texts, targets)
    return {**rouge._asdict(), "exact": exact, **share_right_by_part(texts, targets)}
