"""E6, trained: a small character model that continues a sentence, and the same model without attention."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax

from experiments.inside_a_transformer import weather
from experiments.inside_a_transformer.config import CharacterConfig
from jax_attention import data, decoding, models, training


class TrainedResults(NamedTuple):
    """Results of one trained model.

    seed: seed of the training.
    validation_loss: loss on the validation split, in nats.
    text: continuation of the sentence.
    right: number of held-out sentences that are ended rightly.
    held_out: number of held-out sentences; 0 for a text of the user.
    """

    seed: int
    validation_loss: float
    text: str
    right: int
    held_out: int


def run(config: CharacterConfig, sentence: str, text: Path | None = None) -> dict[str, list[TrainedResults]]:
    """Train from every seed; on the sentences of `weather` also without attention to earlier characters."""
    kinds: dict[str, tuple[int | None, ...]] = {"attention": (None,)}
    if text is None:
        kinds["each character sees itself alone"] = (1,)
    held_out = weather.held_out() if text is None else []
    corpus = prepare(config, text)
    return {
        name: [
            train(model_config(config, corpus, windows), config, corpus, seed, sentence, held_out)
            for seed in config.seeds
        ]
        for name, windows in kinds.items()
    }


def prepare(config: CharacterConfig, text: Path | None) -> data.Corpus:
    """Characters of the file, or of the sentences of `weather`."""
    source = text or [data.Document("weather", weather.training_text())]
    return data.prepare(source, tokenizer="characters", length=config.context)


def train(
    sizes: models.LMConfig,
    config: CharacterConfig,
    corpus: data.Corpus,
    seed: int,
    sentence: str,
    held_out: list[tuple[str, str]],
) -> TrainedResults:
    """Train one model, and let it continue the sentence and the beginnings of held-out sentences."""
    optimizer = training.make_optimizer(
        training.OptimizerConfig(learning_rate=config.learning_rate, warmup=config.steps // 10), steps=config.steps
    )
    fitted = training.fit(
        training.init_state(models.create(sizes, seed), optimizer, rng=jax.random.key(seed)),
        training.make_train_step(optimizer),
        corpus.train,
        training.LoopConfig(steps=config.steps, batch_size=config.batch_size, seed=seed, log_every=config.steps),
        evaluate=training.make_evaluate(corpus.validation, config.batch_size),
    )
    if fitted.stopped is not None:
        raise SystemExit(f"{fitted.stopped}: stopped before the end; no results were written")
    prompts = [sentence, *(beginning for beginning, _ in held_out)]
    text, *endings = continuations(fitted.state.model, corpus.tokenizer, prompts)
    right = sum(ending.startswith(expected) for ending, (_, expected) in zip(endings, held_out, strict=True))
    return TrainedResults(seed, fitted.evaluation["loss"], text, right, len(held_out))


def model_config(config: CharacterConfig, corpus: data.Corpus, windows: tuple[int | None, ...]) -> models.LMConfig:
    """Config of a small decoder; with a window of 1 each character attends to itself only."""
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
    """The 16 likeliest characters after each prompt."""
    ids = [tokenizer.encode(prompt).tolist() for prompt in prompts]
    return decoding.generate(model, ids, max_new_tokens=16, tokenizer=tokenizer).text
