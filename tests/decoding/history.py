"""A language model that remembers its text in one number, in JAX and in NumPy; and beam search from its definition."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.cache import EMPTY
from jax_attention.core.struct import data_field, struct

FORGETTING = 0.6


@struct
class History:
    """m' = 0.6 m + weight[token],  logits = table[token] + cos(m' waves) + offset; the cache of a row is its m."""

    table: jax.Array = data_field()
    """[V, V]"""
    weight: jax.Array = data_field()
    """[V]"""
    waves: jax.Array = data_field()
    """[V]"""
    offset: jax.Array = data_field()
    """[..., V], with the leading axes of the prompts, as what a decoder knows of a source."""

    @property
    def config(self) -> SimpleNamespace:
        return SimpleNamespace(vocab_size=len(self.weight), context=64, position="none")

    def init_cache(self, batch: tuple[int, ...] = (), capacity: int | None = None) -> jax.Array:
        return jnp.zeros((1, *batch))

    def hidden(self, tokens: jax.Array, *, positions: jax.Array, cache: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(memory, entry):
            token, real = entry
            memory = jnp.where(real, FORGETTING * memory + self.weight[token], memory)
            return memory, self.table[token] + jnp.cos(memory[..., None] * self.waves) + self.offset

        real = jnp.broadcast_to(positions != EMPTY, tokens.shape)
        memory, logits = jax.lax.scan(one, cache[0], (jnp.moveaxis(tokens, -1, 0), jnp.moveaxis(real, -1, 0)))
        return jnp.moveaxis(logits, 0, -2), memory[None]

    def unembed(self, hidden: jax.Array) -> jax.Array:
        return hidden

    def row(self, *index: int) -> History:
        """The model of one prompt of a batch."""
        return dataclasses.replace(self, offset=self.offset[index])


def random(seed: int, size: int, *lead: int, scale: float = 2.0) -> History:
    rng = np.random.default_rng(seed)
    shapes = {"table": (size, size), "weight": (size,), "waves": (size,), "offset": (*lead, size)}
    return History(**{name: scale * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})


def logprobs(model: History, text: list[int]) -> np.ndarray:
    """Of the next token after a text, float64 `[V]`."""
    parts = {name: np.asarray(x, np.float64) for name, x in dataclasses.asdict(model).items()}
    memory = 0.0
    for token in text:
        memory = FORGETTING * memory + parts["weight"][token]
    logits = parts["table"][text[-1]] + np.cos(memory * parts["waves"]) + parts["offset"]
    logits = logits - logits.max()
    return logits - np.log(np.exp(logits).sum())


def total(model: History, prompt: list[int], new: list[int]) -> float:
    """The log-probability of new tokens after a prompt."""
    return float(sum(logprobs(model, [*prompt, *new[:i]])[token] for i, token in enumerate(new)))


def beams(
    model: History,
    prompt: list[int],
    *,
    num_beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
    early_stopping: Any = False,
    stop_tokens: tuple[int, ...] = (),
    banned: tuple[int, ...] = (),
) -> list[tuple[tuple[int, ...], float]]:
    """Beam search on lists of (tokens, score), best first, as long as they may be."""
    running, finished = [((), 0.0)], []
    for length in range(1, max_new_tokens + 1):
        longer = [
            ((*tokens, token), score + logprob)
            for tokens, score in running
            for token, logprob in enumerate(logprobs(model, [*prompt, *tokens]))
            if token not in banned
        ]
        longer.sort(key=lambda beam: -beam[1])
        at_end = length == max_new_tokens
        ending = [beam for beam in longer[:num_beams] if at_end or beam[0][-1] in stop_tokens]
        finished += [(tokens, score / length**length_penalty) for tokens, score in ending]
        finished = sorted(finished, key=lambda beam: -beam[1])[:num_beams]
        running = [beam for beam in longer if beam[0][-1] not in stop_tokens][:num_beams]
        if not running or done(
            running[0][1], length, finished, num_beams, max_new_tokens, length_penalty, early_stopping
        ):
            break
    return finished


def done(best, length, finished, num_beams, limit, penalty, early_stopping) -> bool:
    """Whether nothing better is to come."""
    if len(finished) < num_beams:
        return False
    if early_stopping is True:
        return True
    reached = limit if early_stopping == "never" and penalty > 0 else length
    return best / reached**penalty <= finished[-1][1]


def every(
    model: History, prompt: list[int], limit: int, penalty: float, stop: int
) -> list[tuple[tuple[int, ...], float]]:
    """All texts of up to `limit` tokens that end by `stop` or at the limit, best first."""
    others = [token for token in range(len(model.weight)) if token != stop]
    texts = [(*body, stop) for n in range(limit) for body in itertools.product(others, repeat=n)]
    texts += itertools.product(others, repeat=limit)
    found = [(text, total(model, prompt, list(text)) / len(text) ** penalty) for text in texts]
    return sorted(found, key=lambda beam: -beam[1])
