"""Config of the experiment, training of both encoders and of a blind model, and all measurements."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from experiments.digits.descriptions import KINDS, START, STOP, WORDS, Descriptions, describe_digits, words_by_kind
from experiments.digits.hiding import accuracy_by_kind, measure_hiding
from experiments.digits.model import (
    ENCODERS,
    ImageBatches,
    ImageDescriber,
    Sizes,
    predict_words,
    train_describer,
)
from experiments.seed_training import TrainingConfig
from jax_attention import decoding, models

SHOWN = ("four", "seven", "zero")
"""Digits of which the first held-out image is drawn."""


@dataclass(frozen=True)
class Config:
    """Sizes, training, the share of held-out images, and the numbers of patches to hide."""

    sizes: Sizes = field(default_factory=Sizes)
    schooling: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=800, learning_rate=3e-3))
    held_out: float = 0.2
    counts: tuple[int, ...] = (1, 2, 4, 8, 12)


SMALL = Config(Sizes(width=32), TrainingConfig(steps=200, learning_rate=6e-3, seeds=(0,)), counts=(1, 4, 8))


class ModelResults(NamedTuple):
    """Measurements of one trained model on held-out images; shares of right words are `[kinds]`.

    right: each word predicted after the true words before it.
    written: each word predicted after the words that the model itself has written.
    other_image: like `right`, but with another image.
    maps: attention weights of each word, means over heads and images, `[kinds, patches]`.
    hidden: result of `hiding.measure_hiding`.
    """

    right: np.ndarray
    written: np.ndarray
    other_image: np.ndarray
    maps: np.ndarray
    hidden: dict[str, np.ndarray]


class Examples(NamedTuple):
    """Held-out images `[n, 8, 8]`, the words written about them, and the maps of the words `[n, kinds, patches]`."""

    images: np.ndarray
    words: list[tuple[str, ...]]
    maps: np.ndarray


class Results(NamedTuple):
    """Baselines `[kinds]` and `[seeds, kinds]`, results by encoder and seed, and examples of the first model."""

    commonest: np.ndarray
    blind: np.ndarray
    models: dict[str, list[ModelResults]]
    examples: Examples


def run(config: Config | None = None) -> Results:
    """Train a model with each encoder and one that never sees an image, and measure them on held-out images."""
    config = Config() if config is None else config
    training, held_out = describe_digits(config.held_out)
    results: dict[str, list[ModelResults]] = {}
    examples = None
    for name in ENCODERS:
        trained = train_describer(config.sizes, ImageBatches(training), config.schooling, name == "together")
        examples = make_examples(trained[0].model, held_out) if examples is None else examples
        results[name] = [measure_model(run.model, held_out, config) for run in trained]
    return Results(
        commonest_word_accuracy(training, held_out), blind_accuracy(config, training, held_out), results, examples
    )


def measure_model(model: ImageDescriber, descriptions: Descriptions, config: Config) -> ModelResults:
    """Run all measurements of one model."""
    images, words = descriptions.images, descriptions.words
    predicted = predict_words(model, images, words)
    other_images = np.roll(images, len(images) // 2, axis=0)
    return ModelResults(
        accuracy_by_kind(predicted.words, words),
        accuracy_by_kind(write_words(model, images), words),
        accuracy_by_kind(predict_words(model, other_images, words).words, words),
        predicted.maps[:, : len(KINDS)].mean(0),
        measure_hiding(model, descriptions, predicted.maps, config.counts),
    )


def blind_accuracy(config: Config, training: Descriptions, held_out: Descriptions) -> np.ndarray:
    """Share of right words `[seeds, kinds]` of a model that never sees an image, only the true words before."""
    batches = ImageBatches(training, visible=False)
    no_patches = batches.batch(0, 0, len(held_out.images)).source_positions
    predictions = [
        predict_words(run.model, held_out.images, held_out.words, no_patches)
        for run in train_describer(config.sizes, batches, config.schooling, False)
    ]
    return np.array([accuracy_by_kind(predicted.words, held_out.words) for predicted in predictions])


def commonest_word_accuracy(training: Descriptions, held_out: Descriptions) -> np.ndarray:
    """Share of right words `[kinds]` if each word is always the commonest of its kind in training."""
    pairs = zip(words_by_kind(training.words).values(), words_by_kind(held_out.words).values(), strict=True)
    return np.array([np.mean(new == Counter(old.tolist()).most_common(1)[0][0]) for old, new in pairs])


def write_words(model: ImageDescriber, images: np.ndarray) -> np.ndarray:
    """Greedy descriptions, `[N, 6]`."""
    prompts = [[START]] * len(images)
    decoder = _condition(model, images)
    return np.asarray(decoding.generate(decoder, prompts, max_new_tokens=6, stop_tokens=STOP).tokens)


@jax.jit
def _condition(model: ImageDescriber, images: jax.Array) -> models.ConditionedDecoder:
    return model.condition(images)


def make_examples(model: ImageDescriber, descriptions: Descriptions) -> Examples:
    """The first image of each digit in `SHOWN`, and the words that the model writes about it."""
    digits = words_by_kind(descriptions.words)["digit"].tolist()
    chosen = [digits.index(WORDS.index(name)) for name in SHOWN]
    written = write_words(model, descriptions.images)[chosen]
    rows = np.concatenate([np.full((len(chosen), 1), START), written], axis=1)
    maps = predict_words(model, descriptions.images[chosen], rows).maps[:, : len(KINDS)]
    words = [tuple(WORDS[word] for word in row[: len(KINDS)]) for row in written]
    return Examples(descriptions.images[chosen, ..., 0], words, maps)
