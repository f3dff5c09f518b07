"""Beam search written from its definition in NumPy, and a model for it: one that sums up its text in one number."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.cache import EMPTY
from jax_attention.core.struct import data_field, struct

DECAY = 0.6


@struct
class DecayingSumModel:
    """m' = 0.6 m + weight[token],  logits = table[token] + cos(m' waves) + offset; the cache of a row is its m."""

    table: jax.Array = data_field()
    """[V, V]"""
    weight: jax.Array = data_field()
    """[V]"""
    waves: jax.Array = data_field()
    """[V]"""
    offset: jax.Array = data_field()
    """[..., V], with the batch dimensions of the prompts, as the source of an encoder-decoder has them."""

    @property
    def config(self) -> SimpleNamespace:
        return SimpleNamespace(vocab_size=len(self.weight), context=64, position="none")

    def init_cache(self, batch: tuple[int, ...] = (), capacity: int | None = None) -> jax.Array:
        return jnp.zeros((1, *batch))

    def hidden(self, tokens: jax.Array, *, positions: jax.Array, cache: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(memory, entry):
            token, is_real = entry
            memory = jnp.where(is_real, DECAY * memory + self.weight[token], memory)
            return memory, self.table[token] + jnp.cos(memory[..., None] * self.waves) + self.offset

        is_real = jnp.broadcast_to(positions != EMPTY, tokens.shape)
        memory, logits = jax.lax.scan(step, cache[0], (jnp.moveaxis(tokens, -1, 0), jnp.moveaxis(is_real, -1, 0)))
        return jnp.moveaxis(logits, 0, -2), memory[None]

    def unembed(self, hidden: jax.Array) -> jax.Array:
        return hidden

    def row(self, *index: int) -> DecayingSumModel:
        """The model of one prompt of a batch."""
        return dataclasses.replace(self, offset=self.offset[index])


def random_model(seed: int, size: int, *batch_shape: int, scale: float = 2.0) -> DecayingSumModel:
    rng = np.random.default_rng(seed)
    shapes = {"table": (size, size), "weight": (size,), "waves": (size,), "offset": (*batch_shape, size)}
    arrays = {name: scale * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return DecayingSumModel(**arrays)


def next_logprobs(model: DecayingSumModel, text: list[int]) -> np.ndarray:
    """Log-probabilities of the next token after a text, float64 `[V]`."""
    arrays = {name: np.asarray(x, np.float64) for name, x in dataclasses.asdict(model).items()}
    memory = 0.0
    for token in text:
        memory = DECAY * memory + arrays["weight"][token]
    logits = arrays["table"][text[-1]] + np.cos(memory * arrays["waves"]) + arrays["offset"]
    logits = logits - logits.max()
    return logits - np.log(np.exp(logits).sum())


def total_logprob(model: DecayingSumModel, prompt: list[int], new: list[int]) -> float:
    """The log-probability of new tokens after a prompt."""
    return float(sum(next_logprobs(model, [*prompt, *new[:i]])[token] for i, token in enumerate(new)))


def beam_search_reference(
    model: DecayingSumModel,
    prompt: list[int],
    *,
    num_beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
    early_stopping: Any = False,
    stop_tokens: tuple[int, ...] = (),
    banned: tuple[int, ...] = (),
    forbidden: Callable[[list[int]], set[int]] = lambda text: set(),
) -> list[tuple[tuple[int, ...], float]]:
    """Beam search on lists of (tokens, score), best first; fewer than K where fewer exist.

    Tokens in `banned` are never chosen, those in `forbidden(text)` not after that text.
    """
    running, finished = [((), 0.0)], []
    for length in range(1, max_new_tokens + 1):
        longer = [
            ((*tokens, token), score + logprob)
            for tokens, score in running
            for token, logprob in enumerate(next_logprobs(model, [*prompt, *tokens]))
            if token not in {*banned, *forbidden([*prompt, *tokens])}
        ]
        longer.sort(key=lambda beam: -beam[1])
        at_limit = length == max_new_tokens
        ending = [beam for beam in longer[:num_beams] if at_limit or beam[0][-1] in stop_tokens]
        finished += [(tokens, score / length**length_penalty) for tokens, score in ending]
        finished = sorted(finished, key=lambda beam: -beam[1])[:num_beams]
        running = [beam for beam in longer if beam[0][-1] not in stop_tokens][:num_beams]
        if not running or is_done(
            running[0][1], length, finished, num_beams, max_new_tokens, length_penalty, early_stopping
        ):
            break
    return finished


def is_done(best_sum, length, finished, num_beams, limit, penalty, early_stopping) -> bool:
    """Whether no running beam can get into the finished ones."""
    if len(finished) < num_beams:
        return False
    if early_stopping is True:
        return True
    compared_length = limit if early_stopping == "never" and penalty > 0 else length
    return best_sum / compared_length**penalty <= finished[-1][1]


def exhaustive_search(
    model: DecayingSumModel, prompt: list[int], limit: int, penalty: float, stop: int
) -> list[tuple[tuple[int, ...], float]]:
    """All texts of up to `limit` tokens that end with `stop` or at the limit, best first."""
    others = [token for token in range(len(model.weight)) if token != stop]
    texts = [(*body, stop) for n in range(limit) for body in itertools.product(others, repeat=n)]
    texts += itertools.product(others, repeat=limit)
    scored = [(text, total_logprob(model, prompt, list(text)) / len(text) ** penalty) for text in texts]
    return sorted(scored, key=lambda beam: -beam[1])
