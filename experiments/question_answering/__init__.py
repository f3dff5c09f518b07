"""Questions about a passage: does a model that attends answer better than one that does not?

Question: a passage says which instrument each of two or three people plays, and the question asks for one of them.
          Which of three models answers, about new passages and pairs of person and instrument that it never saw?
Command:  python -m experiments.question_answering
Time:     5 minutes of CPU time.
Result:   right about new passages 0.579 without attention, 0.986 with additive attention, 0.423 by the Transformer,
          where guessing is 0.420; about new pairs 0.059, 0.939, 0.409. So without attention the pairs of training are
          learnt by heart. The attending model's largest weight is at the answer in 0.988 and 0.963.

    reading.py      passages as rows of words; chance
    looking.py      where the answering step looks
    drawing.py      the figures
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import corpora, learn, pair_models
from experiments.corpora.passage_words import INSTRUMENTS, KINDS
from experiments.question_answering import looking, reading
from jax_attention import data

LOOKS = "additive"
"""The model whose maps are measured and drawn: it has one, and it reads in one step."""


@dataclass(frozen=True)
class Config:
    """Passages, and the training of each model."""

    people: tuple[int, int] = (2, 3)
    train: int = 20_000
    test: int = 500
    models: tuple[str, ...] = ("no attention", LOOKS, pair_models.TRANSFORMER)
    sizes: pair_models.Sizes = field(default_factory=lambda: pair_models.Sizes(width=64))
    recurrent: learn.Schooling = field(default_factory=lambda: learn.Schooling(steps=1500, learning_rate=5e-3))
    transformer: learn.Schooling = field(default_factory=lambda: learn.Schooling(steps=1500, learning_rate=3e-3))

    def schooling(self, name: str) -> learn.Schooling:
        """How the model of this name is trained."""
        return self.transformer if name == pair_models.TRANSFORMER else self.recurrent


SMALL = Config(
    people=(2, 2),
    train=10_000,
    test=100,
    models=("no attention", LOOKS),
    recurrent=learn.Schooling(steps=700, learning_rate=5e-3, seeds=(1, 2)),
)


class Answers(NamedTuple):
    """One kind of model over all seeds: right or not `[seeds, test]` for each set, losses, size, seconds a step."""

    right: dict[str, np.ndarray]
    losses: np.ndarray
    parameters: int
    seconds: float


class Results(NamedTuple):
    """Sets of passages, chance on each, the answers by model, and where the attending recurrent model looked."""

    asked: dict[str, list[corpora.Passage]]
    chance: dict[str, reading.Chance]
    answers: dict[str, Answers]
    looked: dict[str, list[looking.Looked]]


def run(config: Config | None = None) -> Results:
    """Train every model from every seed, and ask."""
    config = Config() if config is None else config
    training = told(config, 0, config.train)
    asked = {
        "training passages": training[: config.test],
        "new passages": told(config, 1, config.test),
        "new pairs": told(config, 2, config.test, combinations="held_out"),
    }
    words = reading.words(training)
    rows = learn.Rows(**reading.rows(training, words))
    answers, looked = {}, {}
    for name in config.models:
        learned = train(config, name, rows, words)
        right = {
            which: np.array([answered(one.model, some, words) for one in learned]) for which, some in asked.items()
        }
        answers[name] = Answers(
            right,
            np.array([one.losses for one in learned]),
            learn.parameters(learned[0].model),
            float(np.median([one.seconds for one in learned])),
        )
        if name == LOOKS:
            looked = {
                which: [looking.looked(one.model, some, words) for one in learned] for which, some in asked.items()
            }
    return Results(asked, {which: reading.chance(training, some) for which, some in asked.items()}, answers, looked)


def told(config: Config, seed: int, count: int, combinations: str = "training") -> list[corpora.Passage]:
    """The first so many passages that tell of instruments, of whatever the generator makes."""
    drawn = count * (len(KINDS) + 2)  # one in six is about instruments
    made = corpora.passages(seed, drawn, people=config.people, kinds=1, combinations=combinations)
    return [passage for passage in made if passage.answer in INSTRUMENTS][:count]


def train(config: Config, name: str, rows: learn.Rows, words: data.Words) -> list[learn.Learned]:
    """The model of this name, from every seed."""
    size = words.vocab_size
    create = pair_models.pair_model(name, size, size, config.sizes)
    return learn.learn(create, rows, config.schooling(name))


@jax.jit
def _answer(model: Any, source: jax.Array, positions: jax.Array, tokens: jax.Array) -> jax.Array:
    return model(source, tokens, source_positions=positions).logits[:, -1].argmax(-1)


def answered(model: Any, passages: list[corpora.Passage], words: data.Words) -> np.ndarray:
    """Whether the likeliest word is the answer, `[passages]`."""
    asked = reading.rows(passages, words)
    said = _answer(model, asked["source"], asked["source_positions"], asked["tokens"])
    return np.asarray(said) == asked["targets"][:, 0]
