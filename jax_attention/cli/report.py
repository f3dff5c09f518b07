"""What a trained model is shown by: text it continues, figures beside counts, pictures of its attention."""

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

PROMPT_TOKENS = 24
PICTURE_TOKENS = 24
SAMPLER = (0.8, 0.95)
"""Temperature and top-p of the samples that training prints."""


def count_parameters(config: models.LMConfig) -> int:
    """All numbers that training changes."""
    shapes = jax.eval_shape(lambda: models.create(config))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


def multiplied_parameters(config: models.LMConfig) -> int:
    """Those that are multiplied with each token: without tables that are only looked up."""
    looked_up = config.context * config.width if config.position == "learned" else 0
    looked_up += 0 if config.tied_head else config.vocab_size * config.width
    return count_parameters(config) - looked_up


def meter(run: run_folder.Run, corpus: data.Corpus, trained: Any, mesh: jax.sharding.Mesh) -> training.Meter:
    """For speed on the devices of the mesh, and bits per byte.

    Of a frozen model the gradients of most kernels are not computed.
    """
    config, multiplied = run.config, multiplied_parameters(run.config)
    if isinstance(trained, nn.Adapters):
        sizes = [math.prod(x.shape[:-1]) * trained.up[name].shape[-1] for name, x in trained.down.items()]
        multiplied = (2 * multiplied + sum(sizes)) // 3
    flops = training.train_flops(multiplied, config.depth, run.length, config.num_heads * config.resolved_head_size)
    tokens = corpus.validation.predicted
    return training.Meter(flops, training.matmul_peak(config.dtype, mesh), corpus.validation_bytes / tokens)


def prompt_ids(corpus: data.Corpus, context: int, text: str | None) -> np.ndarray:
    """The user's prompt, or the first words of the first held-out document."""
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
    """The prompt and what the model makes of it."""
    sampler = decoding.sampler(decoding.temperature(SAMPLER[0]), decoding.top_p(SAMPLER[1]), *only_spelled(run))
    made = decoding.generate(
        model,
        prompt,
        max_new_tokens=min(count, run.config.context - len(prompt)),
        sampler=sampler,
        rng=jax.random.key(0),
    )
    text = run.tokenizer.decode(np.concatenate([prompt, np.asarray(made.tokens)[: int(made.lengths)]]))
    return f"--- continues: {run.tokenizer.decode(prompt)!r}\n{text}\n---"


def only_spelled(run: run_folder.Run | pretrained.Pretrained) -> list[Callable]:
    """A logit transform that forbids ids without a text: models often embed more ids than their tokenizer has."""
    size = run.tokenizer.vocab_size
    return [] if size == run.config.vocab_size else [_below(size)]


@functools.cache
def _below(size: int) -> Callable:
    def known_tokens(logits: jax.Array, seen: jax.Array) -> jax.Array:
        return jnp.where(jnp.arange(logits.shape[-1]) < size, logits, float("-inf"))

    return known_tokens


def finish(
    run: run_folder.Run,
    model: models.TransformerLM,
    evaluation: dict[str, float],
    corpus: data.Corpus,
    prompt: np.ndarray,
) -> None:
    """After the last step: figures beside the counts, text, pictures."""
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
    """All maps of one sequence, `[L, N, T, T]`."""
    captured = _capture(model, np.asarray(ids, np.int32))
    return np.stack([np.asarray(captured[layer], np.float32) for layer in sorted(captured)])


@jax.jit
def _capture(model: models.TransformerLM, ids: jax.Array) -> dict[int, jax.Array]:
    return model(ids, capture=models.Capture(weights="all")).captured.weights


def draw(
    run: run_folder.Run | pretrained.Pretrained, model: models.TransformerLM, ids: np.ndarray, folder: Path
) -> list[Path]:
    """Heat map of the last layer's mean head, grid of all heads, and the page. What cannot be drawn is said: no
    pictures without matplotlib, nothing for rules with negative weights.
    """
    labels, weights = token_labels(run.tokenizer, ids), attention_weights(model, ids)
    mean, last = weights[-1].mean(axis=0), len(weights) - 1
    makers: dict[str, Callable[[], Any]] = {
        "attention.html": lambda: viz.html_page(weights, labels, title=f"Attention of {run.folder.name}"),
        "attention.png": lambda: viz.heat_map(mean, labels, labels, title=f"Layer {last}, mean over heads"),
        "heads.png": lambda: viz.head_grid(weights, labels, labels, title="All heads"),
    }
    made = []
    for name, make in makers.items():
        try:
            made.append(viz.save(make(), folder / name))
        except (ImportError, ValueError) as error:
            print_line(f"no {name}: {error}")
    return made
