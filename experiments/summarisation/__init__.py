"""Summaries of reports: does a model that attends write better ones than a model that does not?

Question: a report tells in any order who came where and when and did what, and something else; the summary says it in
          one order, in the active voice. Which of three models of one width writes it, of new reports, and of pairs of
          who and where that it never saw, and how does that compare with the first sentences?
Command:  python -m experiments.summarisation
Time:     5 minutes of CPU time.
Result:   exact summaries of new reports: none without attention, 0.60 to 0.92 with additive attention, 0.36 to 0.71
          by the Transformer; ROUGE-2 43.8, 97.0, 89.3, where the first three sentences have 10.5. With attention,
          pairs of who and where that were held out cost nothing.

    telling.py      reports as rows of words; what of a summary is right
    drawing.py      the figures
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import corpora, learn, pair_models
from experiments.summarisation import telling
from jax_attention import data, models, training

ALIGNED = "additive"
"""The model whose map is drawn: it has one."""
NEW = "new reports"


@dataclass(frozen=True)
class Config:
    """Reports, and the training of each model."""

    facts: tuple[int, int] = (1, 2)
    fillers: tuple[int, int] = (0, 1)
    train: int = 20_000
    test: int = 200
    multiple: int = 28
    models: tuple[str, ...] = ("no attention", ALIGNED, pair_models.TRANSFORMER)
    sizes: pair_models.Sizes = field(default_factory=lambda: pair_models.Sizes(width=48))
    recurrent: learn.Schooling = field(
        default_factory=lambda: learn.Schooling(steps=700, batch_size=32, learning_rate=5e-3)
    )
    transformer: learn.Schooling = field(
        default_factory=lambda: learn.Schooling(steps=700, batch_size=32, learning_rate=4e-3)
    )

    def schooling(self, name: str) -> learn.Schooling:
        """How the model of this name is trained."""
        return self.transformer if name == pair_models.TRANSFORMER else self.recurrent


SMALL = Config(
    facts=(1, 1),
    train=4000,
    test=50,
    models=("no attention", ALIGNED),
    sizes=pair_models.Sizes(width=32),
    recurrent=learn.Schooling(steps=250, batch_size=16, learning_rate=8e-3, seeds=(0, 1)),
)


class Aligned(NamedTuple):
    """The map of one written summary, `[T, S]`, and the words on its axes."""

    weights: np.ndarray
    document: list[str]
    summary: list[str]


class Summaries(NamedTuple):
    """One kind of model over all seeds: what it wrote, by set and seed; training losses; size; seconds a step."""

    written: dict[str, list[list[str]]]
    losses: np.ndarray
    parameters: int
    seconds: float


class Results(NamedTuple):
    """The reports by set, the summaries by model, and one map."""

    reports: dict[str, list[corpora.Report]]
    made: dict[str, Summaries]
    aligned: Aligned | None


def run(config: Config | None = None) -> Results:
    """Train every model from every seed, and let it write."""
    config = Config() if config is None else config
    told = reports(config, 0, config.train)
    asked = {NEW: reports(config, 1, config.test), "new pairs": reports(config, 2, config.test, "held_out")}
    documents, summaries = telling.words(told)
    pairs = data.Seq2SeqBatches(
        documents.encode_many(report.document for report in told),
        summaries.encode_many(report.summary for report in told),
        start=telling.START,
        stop=telling.STOP,
        multiple=config.multiple,
    )
    made, aligned = {}, None
    for name in config.models:
        create = pair_models.pair_model(name, documents.vocab_size, summaries.vocab_size, config.sizes)
        learned = learn.learn(create, pairs, config.schooling(name))
        written = {
            which: [write(one.model, documents, summaries, some) for one in learned] for which, some in asked.items()
        }
        made[name] = Summaries(
            written,
            np.array([one.losses for one in learned]),
            learn.parameters(learned[0].model),
            float(np.median([one.seconds for one in learned])),
        )
        if name == ALIGNED:
            report, text = asked[NEW][0], written[NEW][0][0]
            aligned = align(learned[0].model, documents, summaries, report.document, text)
    return Results(asked, made, aligned)


def reports(config: Config, seed: int, count: int, combinations: str = "training") -> list[corpora.Report]:
    """Reports of the config's sizes."""
    return corpora.reports(seed, count, facts=config.facts, fillers=config.fillers, combinations=combinations)


def write(model: Any, documents: data.Words, summaries: data.Words, some: list[corpora.Report]) -> list[str]:
    """The likeliest word after the other."""
    sources = documents.encode_many(report.document for report in some)
    rows = pair_models.write(model, list(sources), start=telling.START, stop=telling.STOP, most=telling.MOST)
    return [summaries.decode(row) for row in rows]


def align(model: Any, documents: data.Words, summaries: data.Words, document: str, text: str) -> Aligned:
    """What the model looks at before it writes each word of its text."""
    source, target = documents.encode(document), summaries.encode(text)
    before = np.concatenate([[telling.START], target[:-1]]).astype(np.int32)
    out = jax.jit(lambda model: model(source, before, capture=models.Capture(cross="all")))(model)
    weights = np.asarray(out.captured.cross[0])[0]
    return Aligned(weights, document.split(" "), text.split(" "))


def scores(texts: list[str], some: list[corpora.Report]) -> dict[str, float]:
    """ROUGE, and shares of summaries that are right: wholly, and in each kind of word."""
    wanted = [report.summary for report in some]
    rouge = training.rouge(texts, wanted, tokenize="spaces")
    return {**rouge._asdict(), "exact": training.exact_match(texts, wanted), **telling.kept(texts, wanted)}
