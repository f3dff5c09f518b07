"""E6, trained: a small model of characters that continues a sentence, and the same one that may not look back."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax

from experiments.inside_a_transformer import weather
from experiments.inside_a_transformer.config import CharacterConfig
from jax_attention import data, decoding, models, training


class Continued(NamedTuple):
    """One trained model: its loss, how it continues the sentence, and how many held-out sentences it ends rightly."""

    seed: int
    validation_loss: float
    text: str
    right: int
    asked: int


def run(config: CharacterConfig, sentence: str, text: Path | None = None) -> dict[str, list[Continued]]:
    """Train from every seed; on our own text also without a view of earlier characters."""
    kinds: dict[str, tuple[int | None, ...]] = {"attention": (None,)}
    if text is None:
        kinds["each character sees itself alone"] = (1,)
    corpus = prepare(config, text)
    return {
        name: [train(config, corpus, sentence, seed, windows, text is None) for seed in config.seeds]
        for name, windows in kinds.items()
    }


def prepare(config: CharacterConfig, text: Path | None) -> data.Corpus:
    """Our text, or the characters of a file."""
    given = text or [data.Document("weather", weather.training_text())]
    return data.prepare(given, tokenizer="characters", length=config.context)


def train(
    config: CharacterConfig,
    corpus: data.Corpus,
    sentence: str,
    seed: int,
    windows: tuple[int | None, ...],
    ours: bool,
) -> Continued:
    """One model, and what it says."""
    model = models.create(model_config(config, corpus, windows), seed)
    optimizer = training.make_optimizer(
        training.OptimizerConfig(learning_rate=config.learning_rate, warmup=config.steps // 10), steps=config.steps
    )
    fitted = training.fit(
        training.init_state(model, optimizer, rng=jax.random.key(seed)),
        training.make_train_step(optimizer),
        corpus.train,
        training.LoopConfig(steps=config.steps, batch_size=config.batch_size, seed=seed, log_every=config.steps),
        evaluate=training.make_evaluate(corpus.validation, config.batch_size),
    )
    if fitted.stopped is not None:
        raise SystemExit(f"{fitted.stopped}: stopped before the end; no results were written")
    asked = weather.held_out() if ours else []
    said = continuations(fitted.state.model, corpus.tokenizer, [sentence, *(given for given, _ in asked)])
    right = sum(text.startswith(follows) for text, (_, follows) in zip(said[1:], asked, strict=True))
    return Continued(seed, fitted.evaluation["loss"], said[0], right, len(asked))


def model_config(config: CharacterConfig, corpus: data.Corpus, windows: tuple[int | None, ...]) -> models.LMConfig:
    """A small decoder; a window of 1 is a model in which each character sees itself alone."""
    return models.LMConfig(
        vocab_size=corpus.tokenizer.vocab_size,
        context=config.context,
        width=config.width,
        depth=config.depth,
        num_heads=config.heads,
        position="rotary",
        windows=windows,
    )


def continuations(model: models.TransformerLM, tokenizer: data.Tokenizer, prompts: list[str]) -> list[str]:
    """The most likely 16 characters behind each prompt."""
    ids = [tokenizer.encode(prompt).tolist() for prompt in prompts]
    return decoding.generate(model, ids, max_new_tokens=16, tokenizer=tokenizer).text
