"""Config of the experiment, training of both models, and the texts that they write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.generation.checks import CheckResults, TrainingSet, check_texts
from experiments.generation.texts import (
    MAX_WORDS,
    START,
    STOP,
    count_bytes,
    encode_texts,
    generate_texts,
    word_tokenizer,
)
from experiments.seed_training import TrainingConfig, count_parameters, train_seeds
from jax_attention import data, decoding, models, training

WINDOWS: dict[str, int | None] = {"each word sees itself": 1, "attention": None}
"""Window of each model: the number of words that a word attends to. Parameters and their initial values are equal."""


@dataclass(frozen=True)
class Config:
    """Texts, sizes of the model, training, and the number of texts to write from each seed."""

    people: tuple[int, int] = (2, 3)
    train: int = 20_000
    test: int = 500
    samples: int = 300
    length: int = 64
    width: int = 48
    depth: int = 2
    heads: int = 4
    schooling: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=1500, batch_size=16, learning_rate=5e-3)
    )

    def model(self, vocab_size: int, window: int | None) -> models.LMConfig:
        """Config of a small decoder with rotary positions."""
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
    schooling=TrainingConfig(steps=300, batch_size=16, learning_rate=6e-3, seeds=(0, 1)),
)


class ModelResults(NamedTuple):
    """Results of one kind of model: metrics, texts and checks by seed, training losses `[seeds, steps]`.

    `held_out` has the metrics on each held-out set, by seed.
    """

    held_out: dict[str, list[dict[str, float]]]
    texts: list[list[str]]
    checks: list[CheckResults]
    losses: np.ndarray
    parameters: int
    seconds: float


class Results(NamedTuple):
    """Losses by counts of words and of pairs, checks of the generator's texts, and results by model."""

    baselines: dict[str, data.Baselines]
    generator: CheckResults
    models: dict[str, ModelResults]


class Task(NamedTuple):
    """Data of one run: tokenizer, training texts as token ids, held-out texts, and the set to check against."""

    words: data.Words
    ids: list[np.ndarray]
    held_out: dict[str, list[str]]
    training_set: TrainingSet


def run(config: Config | None = None) -> Results:
    """Count words, train both models, let them write, check their texts."""
    config = Config() if config is None else config
    texts = generate_texts(config.people, 0, config.train)
    held_out = {
        "new texts": generate_texts(config.people, 1, config.test),
        "new pairs": generate_texts(config.people, 2, config.test, "held_out"),
    }
    words = word_tokenizer(texts)
    task = Task(words, encode_texts(texts, words), held_out, TrainingSet(texts))
    baselines = {
        name: data.ngram_baselines(task.ids, encode_texts(new, words), words.vocab_size, count_bytes(new))
        for name, new in held_out.items()
    }
    models = {name: train_and_check(config, window, task) for name, window in WINDOWS.items()}
    return Results(baselines, check_texts(held_out["new texts"], task.training_set), models)


def train_and_check(config: Config, window: int | None, task: Task) -> ModelResults:
    """Train the model with this window from every seed, evaluate it, and check the texts that it writes."""
    model_config = config.model(task.words.vocab_size, window)
    source = data.PackedDocuments(task.ids, config.length)
    trained = train_seeds(
        lambda rng: models.create(model_config, rng), source, config.schooling, training.language_model_loss
    )
    metrics = {}
    for name, texts in task.held_out.items():
        packed = data.PackedDocuments(encode_texts(texts, task.words), config.length)
        evaluate = training.make_evaluate(packed, config.schooling.batch_size, text_bytes=count_bytes(texts))
        metrics[name] = [evaluate(run.model) for run in trained]
    seeds = config.schooling.seeds
    texts = [
        sample_texts(run.model, task.words, config.samples, seed) for run, seed in zip(trained, seeds, strict=True)
    ]
    return ModelResults(
        metrics,
        texts,
        [check_texts(of_seed, task.training_set) for of_seed in texts],
        np.array([run.losses for run in trained]),
        count_parameters(trained[0].model),
        float(np.median([run.seconds for run in trained])),
    )


def sample_texts(model: Any, words: data.Words, count: int, seed: int) -> list[str]:
    """Draw texts from the model's distribution at temperature 1; a text that ends has `STOP` as its last word."""
    start, stop = (words.vocabulary.index(word) for word in (START, STOP))
    generated = decoding.generate(
        model,
        [[start]],
        max_new_tokens=MAX_WORDS,
        sampler=decoding.sampler(decoding.temperature(1.0)),
        rng=jax.random.key(seed),
        num_samples=count,
        stop_tokens=stop,
    )
    rows = np.asarray(generated.tokens).reshape(count, -1)
    lengths, stopped = (np.asarray(x).reshape(count) for x in (generated.lengths, generated.stopped))
    return [
        words.decode([token for token in row[:length] if token != stop]) + (f" {STOP}" if ended else "")
        for row, length, ended in zip(rows, lengths, stopped, strict=True)
    ]
