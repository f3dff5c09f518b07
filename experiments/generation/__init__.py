"""Texts made by a language model, with attention and without: which of them hold together?

Question: a model writes passages about people, asks a question about them and answer it. How well does it predict new
          texts, and how many of its own could be texts of the generator, if its words may look back, or may not?
Command:  python -m experiments.generation
Time:     130 seconds of CPU time.
Result:   0.983 nats a word of new texts with attention, 2.025 where each word sees itself, 2.019 by counts of pairs. Of
          its sentences 0.985 could be the generator's, of the other's 0.016. But it does not copy yet: of the
          texts that are right until then 0.148 ask about a name that they told, 0.125 would by chance.

    texts.py        passages as rows of words
    judging.py      what is wrong with a text
    drawing.py      the figures
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import learn
from experiments.generation import judging, texts
from jax_attention import data, decoding, models, training

WINDOWS: dict[str, int | None] = {"each word sees itself": 1, "attention": None}
"""How many words back a word sees; the parameters and their start are the same."""


@dataclass(frozen=True)
class Config:
    """Texts, one model, its training, and how many texts it writes from each seed."""

    people: tuple[int, int] = (2, 3)
    train: int = 20_000
    test: int = 500
    samples: int = 300
    length: int = 64
    width: int = 48
    depth: int = 2
    heads: int = 4
    schooling: learn.Schooling = field(
        default_factory=lambda: learn.Schooling(steps=1500, batch_size=16, learning_rate=5e-3)
    )

    def model(self, vocab_size: int, window: int | None) -> models.LMConfig:
        """A small decoder with rotary positions."""
        return models.LMConfig(
            vocab_size=vocab_size,
            context=self.length,
            width=self.width,
            depth=self.depth,
            num_heads=self.heads,
            position="rotary",
            windows=(window,),
        )


SMALL = Config(
    train=3000,
    test=100,
    samples=100,
    width=32,
    schooling=learn.Schooling(steps=300, batch_size=16, learning_rate=6e-3, seeds=(0, 1)),
)


class Made(NamedTuple):
    """One kind of model: for each seed its numbers on each set, what it wrote, and the judgements; training losses."""

    held_out: dict[str, list[dict[str, float]]]
    written: list[list[str]]
    judged: list[judging.Judged]
    losses: np.ndarray
    parameters: int
    seconds: float


class Results(NamedTuple):
    """Counts of words and of pairs, the generator's own texts judged, and the models."""

    baselines: dict[str, data.Baselines]
    own: judging.Judged
    made: dict[str, Made]


def run(config: Config | None = None) -> Results:
    """Count, train, write, judge."""
    config = Config() if config is None else config
    told = texts.told(config.people, 0, config.train)
    held_out = {
        "new texts": texts.told(config.people, 1, config.test),
        "new pairs": texts.told(config.people, 2, config.test, "held_out"),
    }
    words = texts.words(told)
    known = judging.Known(told)
    ids = texts.encoded(told, words)
    baselines = {
        name: data.ngram_baselines(ids, texts.encoded(some, words), words.vocab_size, texts.size(some))
        for name, some in held_out.items()
    }
    made = {name: _made(config, window, words, ids, held_out, known) for name, window in WINDOWS.items()}
    return Results(baselines, judging.judged(held_out["new texts"], known), made)


def _made(
    config: Config,
    window: int | None,
    words: data.Words,
    ids: list[np.ndarray],
    held_out: dict[str, list[str]],
    known: judging.Known,
) -> Made:
    sizes = config.model(words.vocab_size, window)
    source = data.PackedDocuments(ids, config.length)
    learned = learn.learn(lambda rng: models.create(sizes, rng), source, config.schooling, training.language_model_loss)
    measured = {}
    for name, some in held_out.items():
        packed = data.PackedDocuments(texts.encoded(some, words), config.length)
        evaluate = training.make_evaluate(packed, config.schooling.batch_size, text_bytes=texts.size(some))
        measured[name] = [evaluate(one.model) for one in learned]
    seeds = config.schooling.seeds
    written = [write(one.model, words, config.samples, seed) for one, seed in zip(learned, seeds, strict=True)]
    return Made(
        measured,
        written,
        [judging.judged(some, known) for some in written],
        np.array([one.losses for one in learned]),
        learn.parameters(learned[0].model),
        float(np.median([one.seconds for one in learned])),
    )


def write(model: Any, words: data.Words, count: int, seed: int) -> list[str]:
    """Texts drawn from the model's own distribution, at temperature 1; the end is written out if it comes."""
    start, stop = (words.vocabulary.index(word) for word in (texts.START, texts.STOP))
    found = decoding.generate(
        model,
        [[start]],
        max_new_tokens=texts.MOST,
        sampler=decoding.sampler(decoding.temperature(1.0)),
        rng=jax.random.key(seed),
        num_samples=count,
        stop_tokens=stop,
    )
    rows = np.asarray(found.tokens).reshape(count, -1)
    lengths, stopped = (np.asarray(x).reshape(count) for x in (found.lengths, found.stopped))
    return [
        words.decode([token for token in row[:length] if token != stop]) + (f" {texts.STOP}" if ended else "")
        for row, length, ended in zip(rows, lengths, stopped, strict=True)
    ]
