"""A bigram model that trains like a language model, its random text, settings of short runs, bitwise comparison."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jax_attention.training.loop import LoopConfig
from jax_attention.training.optimizers import OptimizerConfig, make_optimizer
from jax_attention.training.step import init_state, make_train_step

V, T, B = 7, 6, 4


class Batch(NamedTuple):
    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    positions: None = None
    segment_ids: None = None


class Bigram(nnx.Module):
    """Logits of the next token from the current one, through an embedding of size 5 with a dropout of one half."""

    def __init__(self, rngs: nnx.Rngs):
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (V, 5)))
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (5, V)))

    def hidden(self, tokens, positions=None, segment_ids=None, rng=None):
        x = self.embedding[...][tokens]
        return (x if rng is None else x * jax.random.bernoulli(rng, 0.5, x.shape) * 2), None

    def unembed(self, hidden):
        return hidden @ self.kernel[...]


class Text:
    """Random tokens; the batch of a step depends on (seed, step) only. The validation split is 10 rows and 2 tokens."""

    def __init__(self, vocab: int = V, length: int = T):
        self.vocab, self.length = vocab, length

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        tokens = np.random.default_rng([seed, step]).integers(0, self.vocab, (batch_size, self.length + 1))
        tokens = tokens.astype(np.int32)
        return Batch(tokens[:, :-1], tokens[:, 1:], np.ones((batch_size, self.length), np.float32))

    def evaluation_batches(self, batch_size: int):
        rows = self.batch(99, 0, 16)
        rows.weights[10, 2:] = rows.weights[11:] = 0
        for start in range(0, 16, batch_size):
            yield Batch(*(x[start : start + batch_size] for x in rows[:3]))


def make(steps: int = 1000, accumulate: int = 1, seed: int = 1) -> tuple[Any, Any]:
    """An initial state and its train step."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.05, warmup=2), steps=steps)
    start = jax.jit(lambda rng: init_state(Bigram(nnx.Rngs(0)), optimizer, rng=rng))
    return start(jax.random.key(seed)), make_train_step(optimizer, accumulate=accumulate)


def config(**changes: Any) -> LoopConfig:
    """Settings of ten steps, each of them logged, without evaluations or checkpoints."""
    return LoopConfig(
        **{"steps": 10, "batch_size": B, "log_every": 1, "evaluate_every": 0, "checkpoint_every": 0} | changes
    )


def bits(tree: Any) -> list[np.ndarray]:
    """Copies of all leaves as unsigned bytes, so that NaN equals NaN and 0 differs from -0."""
    key = jax.dtypes.prng_key
    raw = (jax.random.key_data(x) if jnp.issubdtype(x.dtype, key) else x for x in jax.tree.leaves(tree))
    return [np.array(x).reshape(-1).view(np.uint8) for x in raw]


def assert_same_bits(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    for one, other in zip(bits(a), bits(b), strict=True):
        np.testing.assert_array_equal(one, other)
