"""Masked cross-entropy in chunks of rows, so that the logits `[B, T, V]` never exist at once; also with a source."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.numerics import compute_dtype
from jax_attention.core.short_repr import short_repr
from jax_attention.models.protocols import Seq2Seq

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

LOGITS_AT_ONCE = 2**24
"""Number of logits of one chunk at most (64 MiB in float32)."""


@short_repr
class Losses(NamedTuple):
    """Weighted sums over all targets: divide by `weight` for means. `objective` is what training minimises."""

    objective: jax.Array
    nats: jax.Array
    weight: jax.Array


def cross_entropy(
    unembed: Callable[[jax.Array], jax.Array],
    hidden: Float[Array, "*batch D"],
    targets: Int[Array, "*batch"],
    weights: Float[Array, "*#batch"] | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    logits_at_once: int = LOGITS_AT_ONCE,
    vocab_size: int | None = None,
) -> Losses:
    """Cross-entropy between targets and the logits of hidden states, summed with weights.

        nats = sum_r w_r (lse_r - z_r[target_r]),        z_r = unembed(h_r),  lse_r = logsumexp(z_r)
        objective = sum_r w_r ((1 - a) (lse_r - z_r[target_r]) + a (lse_r - mean(z_r)) + c lse_r^2)

    Rows are taken in chunks; each chunk's logits are computed again in the backward pass instead of being kept.

    Args:
        unembed: `[R, D] -> [R, V]`; arrays it closes over are differentiated.
        hidden: `[..., D]`.
        targets: int `[...]`, from 0 to V - 1, or any number where the weight is 0.
        weights: `[...]`, 0 for padding; None is 1 everywhere.
        label_smoothing: a, the share of the target that is spread evenly over all V.
        z_loss: c, the coefficient of the squared logsumexp, which keeps the logsumexp near 0.
        logits_at_once: a chunk holds at most this many logits.
        vocab_size: V; None takes it from the shape that `unembed` returns.

    Returns:
        `Losses(objective, nats, weight)`: float32 sums `[]` (float64 for float64). `nats / weight` is nats per target.

    Raises:
        ValueError: if the shapes do not fit, or `label_smoothing` is not in [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import training
        >>> training.cross_entropy(lambda h: h, jnp.zeros((2, 3, 4)), jnp.zeros((2, 3), int)).nats.round(4)
        Array(8.3178, dtype=float32)

    Reference:
        https://github.com/apple/axlearn/issues/1236: the memory of all logits at once. Z-loss: Chowdhery et al. (2022),
        "PaLM", section 5.
    """
    fail_unless(
        targets.shape == hidden.shape[:-1],
        f"targets: expected shape {hidden.shape[:-1]}, one per hidden state, got {describe_array(targets)}.",
    )
    fail_unless(0 <= label_smoothing < 1, f"label_smoothing: expected 0 <= a < 1, got {label_smoothing}.")
    dtype = compute_dtype(hidden.dtype)
    rows = targets.size
    weights = jnp.ones((), dtype) if weights is None else jnp.asarray(weights, dtype)
    weights = jnp.broadcast_to(weights, targets.shape).reshape(rows)
    hidden, targets = hidden.reshape(rows, hidden.shape[-1]), targets.reshape(rows)

    chunk_losses = partial(_chunk_losses, unembed, label_smoothing, z_loss)
    if vocab_size is None:
        vocab_size = jax.eval_shape(unembed, jax.ShapeDtypeStruct((1, hidden.shape[-1]), hidden.dtype)).shape[-1]
    size = max(1, logits_at_once // vocab_size)
    if rows <= size:
        return chunk_losses(hidden, targets, weights)
    # Chunks of nearly equal size: fewer padding rows than with full chunks and one small rest.
    chunks = -(-rows // size)
    size = -(-rows // chunks)
    padded = [jnp.pad(x, [(0, chunks * size - rows)] + [(0, 0)] * (x.ndim - 1)) for x in (hidden, targets, weights)]
    entries = tuple(x.reshape(chunks, size, *x.shape[1:]) for x in padded)

    def step(sums: Losses, entry: tuple[jax.Array, ...]) -> tuple[Losses, None]:
        # Without the checkpoint the scan would keep the logits of every chunk for the backward pass.
        return jax.tree.map(jnp.add, sums, jax.checkpoint(chunk_losses)(*entry)), None

    zero = jnp.zeros((), dtype)
    return jax.lax.scan(step, Losses(zero, zero, zero), entries)[0]


def _chunk_losses(
    unembed: Callable[[jax.Array], jax.Array],
    label_smoothing: float,
    z_loss: float,
    hidden: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
) -> Losses:
    """Losses of rows `[R, D]` with targets and weights `[R]`, whose logits may all exist at once."""
    logits = unembed(hidden).astype(weights.dtype)
    lse = jax.nn.logsumexp(logits, axis=-1)
    counted = weights > 0
    target_logits = jnp.take_along_axis(logits, jnp.where(counted, targets, 0)[:, None], axis=-1)[:, 0]
    nats = lse - target_logits
    objective = nats
    if label_smoothing:
        objective = (1 - label_smoothing) * nats + label_smoothing * (lse - jnp.mean(logits, axis=-1))
    if z_loss:
        objective = objective + z_loss * jnp.square(lse)
    # A row of weight 0 may hold NaN or inf, and 0 * NaN is NaN: replace its loss, do not multiply it by 0.
    total = lambda x: jnp.sum(jnp.where(counted, weights * x, 0))  # noqa: E731
    return Losses(total(objective), total(nats), jnp.sum(weights))


def seq2seq_loss(
    model: Any, batch: Any, rng: PRNGKeyArray | None = None, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> Losses:
    """Cross-entropy of the targets of a batch under a model that reads a source.

        sum over positions t of  weights_t (-log p(target_t | source, tokens up to t))

    Args:
        model: `models.EncoderDecoder`, `models.RNNSeq2Seq`, or anything with their `hidden` and `unembed`.
        batch: has `source` `[B, S]`, `source_positions` `[B, S]` with `cache.EMPTY` at padding, and `tokens`,
            `targets`, `weights` `[B, T]`.
        rng: a JAX random key for dropout; None is no dropout.
        label_smoothing: the share of the target that is spread over the vocabulary.
        z_loss: the coefficient of the squared logsumexp.

    Returns:
        `Losses`: sums over the batch. Give it to `make_train_step(optimizer, loss=seq2seq_loss)` and
        `make_evaluate(source, batch_size, evaluate_step=seq2seq_loss)`.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if the model reads no source.

    Example:
        >>> from types import SimpleNamespace
        >>> import jax.numpy as jnp
        >>> from jax_attention import models, training
        >>> model = models.create(models.RNNConfig(source_vocab_size=7, vocab_size=11))
        >>> tokens = jnp.zeros((2, 3), int)
        >>> batch = dict(source=tokens, source_positions=None, tokens=tokens, targets=tokens, weights=jnp.ones((2, 3)))
        >>> training.seq2seq_loss(model, SimpleNamespace(**batch)).weight
        Array(6., dtype=float32)

    Reference:
        Sutskever, Vinyals, Le (2014), "Sequence to sequence learning with neural networks", eq. 2.
    """
    fail_unless(
        isinstance(model, Seq2Seq),
        f"model: expected one that reads a source, such as models.EncoderDecoder, got {type(model).__name__}. The loss "
        "of a language model is language_model_loss.",
        TypeError,
    )
    hidden = model.hidden(batch.source, batch.tokens, source_positions=batch.source_positions, rng=rng)
    return cross_entropy(
        model.unembed, hidden, batch.targets, batch.weights, label_smoothing=label_smoothing, z_loss=z_loss
    )
