"""Report on a trained model: generated text, losses next to n-gram baselines, pictures of its attention."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import data, decoding, models, nn, training, viz
from jax_attention.cli import pretrained, run_folder
from jax_attention.cli.output import print_line, table
from jax_attention.core.text import printable

PROMPT_TOKENS = 24
PICTURE_TOKENS = 24
TEMPERATURE, TOP_P = 0.8, 0.95
"""Sampling of the texts that training prints."""


def count_parameters(config: models.LMConfig) -> int:
    """Number of parameters of a model."""
    shapes = jax.eval_shape(lambda: models.create(config))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


def matmul_parameters(config: models.LMConfig) -> int:
    """Number of parameters that are multiplied with each token: without tables that are only looked up."""
    looked_up = config.context * config.width if config.position == "learned" else 0
    looked_up += 0 if config.tied_head else config.vocab_size * config.width
    return count_parameters(config) - looked_up


def meter(run: run_folder.Run, corpus: data.Corpus, trained: Any, mesh: jax.sharding.Mesh) -> training.Meter:
    """Meter of the speed on the devices of the mesh, and of bits per byte."""
    config, parameters = run.config, matmul_parameters(run.config)
    if isinstance(trained, nn.Adapters):
        # A step costs 6 flops per parameter and token: 2 forward, 2 for the gradient of the input, 2 for that of the
        # kernel. Frozen kernels skip the last; adapted ones do not, because their adapters' gradients pass through it.
        adapted = [math.prod(x.shape[:-1]) * trained.up[name].shape[-1] for name, x in trained.down.items()]
        parameters = (2 * parameters + sum(adapted)) // 3
    flops = training.train_flops(parameters, config.depth, run.length, config.num_heads * config.resolved_head_size)
    tokens = corpus.validation.predicted
    return training.Meter(flops, training.matmul_peak(config.dtype, mesh), corpus.validation_bytes / tokens)


def prompt_ids(corpus: data.Corpus, context: int, text: str | None) -> np.ndarray:
    """Token ids of the user's prompt, or of the beginning of the first held-out document."""
    if text is None:
        tokens = corpus.validation.tokens
        first = next(i for i in range(len(tokens)) if len(tokens.document(i)))
        return np.asarray(tokens.document(first)[: min(PROMPT_TOKENS, max(context // 2, 1))], np.int32)
    ids = corpus.tokenizer.encode(text)
    if not 0 < len(ids) < context:
        raise ValueError(
            f"prompt: expected 1 to {context - 1} tokens, as the context is {context}, got {len(ids)}. Shorten it."
        )
    return ids


def sample_text(run: run_folder.Run, model: models.TransformerLM, prompt: np.ndarray, count: int) -> str:
    """The prompt with its continuation by the model."""
    sampler = decoding.sampler(decoding.temperature(TEMPERATURE), decoding.top_p(TOP_P), *tokenizer_ids_only(run))
    generation = decoding.generate(
        model,
        prompt,
        max_new_tokens=min(count, run.config.context - len(prompt)),
        sampler=sampler,
        rng=jax.random.key(0),
    )
    text = run.tokenizer.decode(np.concatenate([prompt, np.asarray(generation.tokens)[: int(generation.lengths)]]))
    return f"--- continues: {run.tokenizer.decode(prompt)!r}\n{text}\n---"


def tokenizer_ids_only(run: run_folder.Run | pretrained.Pretrained) -> list[Callable]:
    """Logit transforms that exclude ids without text: models often embed more ids than their tokenizer has."""
    size = run.tokenizer.vocab_size
    return [] if size == run.config.vocab_size else [_ids_below(size)]


@functools.cache
def _ids_below(size: int) -> Callable:
    """A logit transform; cached, because a new function would compile generation again."""

    def mask_logits(logits: jax.Array, history: decoding.History) -> jax.Array:
        return jnp.where(jnp.arange(logits.shape[-1]) < size, logits, float("-inf"))

    return mask_logits


def finish(
    run: run_folder.Run,
    model: models.TransformerLM,
    evaluation: dict[str, float],
    corpus: data.Corpus,
    prompt: np.ndarray,
) -> None:
    """Print and save the results after the last step: losses next to n-gram baselines, and pictures."""
    counts = corpus.baselines()
    rows = {
        "unigram counts": (counts.unigram.nats_per_token, counts.unigram.bits_per_byte),
        "bigram counts": (counts.bigram.nats_per_token, counts.bigram.bits_per_byte),
        "this model": (evaluation["loss"], evaluation["bits_per_byte"]),
    }
    print_line(f"\nheld-out text, {corpus.validation_bytes:,} bytes, {corpus.validation.predicted:,} tokens:")
    table(
        ("predicted by", "nats per token", "bits per byte"), [(n, f"{a:.4f}", f"{b:.4f}") for n, (a, b) in rows.items()]
    )
    results = {name: {"nats_per_token": a, "bits_per_byte": b} for name, (a, b) in rows.items()}
    run_folder.write_json(run.folder / run_folder.RESULTS, results)
    pictures = draw(run, model, prompt[:PICTURE_TOKENS], run.folder)
    if pictures:
        print_line(f"\npictures   {', '.join(str(path) for path in pictures)}")
    print_line(f"more text  jax-attention generate {run.folder} --prompt '...'")


def token_labels(tokenizer: data.Tokenizer, ids: np.ndarray) -> list[str]:
    """Each token as text; a token that is part of a character shows its bytes."""
    token_bytes = tokenizer.token_bytes
    labels = []
    for i in np.asarray(ids).tolist():
        text = tokenizer.decode([i])
        labels.append(f"<{token_bytes[i].hex()}>" if token_bytes is not None and "\ufffd" in text else text)
    return labels


def attention_weights(model: models.TransformerLM, ids: np.ndarray) -> np.ndarray:
    """Attention weights `[L, N, T, T]` of one sequence."""
    captured = _capture(model, np.asarray(ids, np.int32))
    return np.stack([np.asarray(captured[layer], np.float32) for layer in sorted(captured)])


@jax.jit
def _capture(model: models.TransformerLM, ids: jax.Array) -> dict[int, jax.Array]:
    return model(ids, capture=models.Capture(weights="all")).captured.weights


def draw(
    run: run_folder.Run | pretrained.Pretrained, model: models.TransformerLM, ids: np.ndarray, folder: Path
) -> list[Path]:
    """Draw the mean over heads of the last layer, the grid of all heads, and the page; return their paths.

    A line is printed for each picture that cannot be drawn: without matplotlib, or for negative weights.
    """
    labels, weights = token_labels(run.tokenizer, ids), attention_weights(model, ids)
    mean, last = weights[-1].mean(axis=0), len(weights) - 1
    makers: dict[str, Callable[[], Any]] = {
        "attention.html": lambda: viz.html_page(weights, labels, title=f"Attention of {printable(run.folder.name)}"),
        "attention.png": lambda: viz.heat_map(mean, labels, labels, title=f"Layer {last}, mean over heads"),
        "heads.png": lambda: viz.head_grid(weights, labels, labels, title="All heads"),
    }
    paths = []
    for name, make in makers.items():
        try:
            paths.append(viz.save(make(), folder / name))
        except (ImportError, ValueError) as error:
            print_line(f"no {name}: {error}")
    return paths
