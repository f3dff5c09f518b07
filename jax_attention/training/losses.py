"""Masked cross-entropy in chunks of rows, so that the logits `[B, T, V]` never exist at once; also with a source."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.explicit_axes import has_explicit_axes
from jax_attention.core.numerics import compute_dtype
from jax_attention.core.short_repr import short_repr
from jax_attention.core.sizes import is_static
from jax_attention.models.protocols import Seq2Seq

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

LOGITS_AT_ONCE = 2**24
"""Number of logits of one chunk at most (64 MiB in float32)."""


@short_repr
class Losses(NamedTuple):
    """Weighted sums over all targets: divide by `weight` for means. `objective` is what training minimises.

    `weight` is the sum of the absolute weights, so that a mean stays a mean where some weights are negative.
    """

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
    ignore_index: int | None = None,
) -> Losses:
    """Cross-entropy between targets and the logits of hidden states, summed with weights.

        nats = sum_r w_r (lse_r - z_r[target_r]),        z_r = unembed(h_r),  lse_r = logsumexp(z_r)
        objective = sum_r w_r ((1 - a) (lse_r - z_r[target_r]) + a (lse_r - mean(z_r)) + c lse_r^2)
        weight = sum_r |w_r|

    Rows are taken in chunks; each chunk's logits are computed again in the backward pass instead of being kept.

    Args:
        unembed: `[R, D] -> [R, V]`; arrays it closes over are differentiated.
        hidden: `[..., D]`.
        targets: int `[...]`, from 0 to V - 1, or any number where the weight is 0. A traced value cannot raise: under
            `jit` a target that is no class makes loss and gradient NaN, and `refuse_nonfinite` skips the step.
        weights: `[...]`, 0 for padding; None is 1 everywhere. A negative weight pushes the model away from its target.
        label_smoothing: a, the share of the target that is spread evenly over all V.
        z_loss: c, the coefficient of the squared logsumexp, which keeps the logsumexp near 0.
        logits_at_once: a chunk holds at most this many logits.
        vocab_size: V; None takes it from the shape that `unembed` returns.
        ignore_index: a target that counts as weight 0, such as -100 in data made for PyTorch; None for none.

    Returns:
        `Losses(objective, nats, weight)`: float32 sums `[]` (float64 for float64). `nats / weight` is nats per target.

    Raises:
        ValueError: if the shapes do not fit, `label_smoothing` is not in [0, 1), or, outside of `jit`, a target is no
            class.
        TypeError: if the targets are not integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import training
        >>> training.cross_entropy(lambda h: h, jnp.zeros((2, 3, 4)), jnp.zeros((2, 3), int)).nats.round(4)
        Array(8.3178, dtype=float32)

    Reference:
        https://github.com/apple/axlearn/issues/1236: the memory of all logits at once. Z-loss: Chowdhery et al. (2022),
        "PaLM", section 5. Absolute weights: https://github.com/huggingface/trl/pull/5951.
    """
    fail_unless(
        targets.shape == hidden.shape[:-1],
        f"targets: expected shape {hidden.shape[:-1]}, one per hidden state, got {describe_array(targets)}.",
    )
    fail_unless(0 <= label_smoothing < 1, f"label_smoothing: expected 0 <= a < 1, got {label_smoothing}.")
    if vocab_size is None:
        vocab_size = jax.eval_shape(unembed, jax.ShapeDtypeStruct((1, hidden.shape[-1]), hidden.dtype)).shape[-1]
    weights = np.ones((), np.float32) if weights is None else weights
    _check_targets(targets, weights, vocab_size, ignore_index)
    dtype = compute_dtype(hidden.dtype)
    rows = targets.size
    weights = jnp.broadcast_to(jnp.asarray(weights, dtype), targets.shape)
    targets = jnp.asarray(targets)
    # Narrower and unsigned integers could not be compared with -100.
    targets = targets if targets.dtype in (jnp.int32, jnp.int64) else targets.astype(jnp.int32)
    if ignore_index is not None:
        # In the dtype of the targets: -100 of uint32 is 4294967196 in both.
        weights = jnp.where(targets == np.asarray(ignore_index).astype(targets.dtype), 0, weights)
    weights, targets = weights.reshape(rows), targets.reshape(rows)
    hidden = hidden.reshape(rows, hidden.shape[-1])

    chunk_losses = partial(_chunk_losses, unembed, label_smoothing, z_loss)
    size = max(1, logits_at_once // vocab_size)
    # A symbolic number of rows has no number of chunks, and explicit axes no division of sharded rows into chunks.
    if not is_static(rows) or rows <= size or has_explicit_axes(hidden):
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
    counted = weights != 0
    is_class = (targets >= 0) & (targets < logits.shape[-1])
    target_logits = jnp.take_along_axis(logits, jnp.where(is_class, targets, 0)[:, None], axis=-1)[:, 0]
    # Indexing would take -1 for the last class. A factor of NaN, not a choice of NaN, makes the gradient NaN too.
    nats = (lse - target_logits) * jnp.where(is_class | ~counted, 1, jnp.nan).astype(lse.dtype)
    objective = nats
    if label_smoothing:
        objective = (1 - label_smoothing) * nats + label_smoothing * (lse - jnp.mean(logits, axis=-1))
    if z_loss:
        objective = objective + z_loss * jnp.square(lse)
    # A row of weight 0 may hold NaN or inf, and 0 * NaN is NaN: replace its loss, do not multiply it by 0.
    total = lambda x: jnp.sum(jnp.where(counted, weights * x, 0))  # noqa: E731
    return Losses(total(objective), total(nats), jnp.sum(jnp.abs(weights)))


def _check_targets(targets: Any, weights: Any, vocab_size: int, ignore_index: int | None) -> None:
    """Refuse targets that are no class and have a weight, if the numbers are known: outside of `jit`."""
    fail_unless(
        jnp.issubdtype(targets.dtype, jnp.integer),
        f"targets: expected integers, got {describe_array(targets)}. Cast them: targets.astype(jnp.int32).",
        TypeError,
    )
    arrays = [x for x in (targets, weights) if isinstance(x, jax.Array)]
    if any(isinstance(x, jax.core.Tracer) or not x.is_fully_addressable for x in arrays):
        return
    ids, counted = np.asarray(targets), np.broadcast_to(np.asarray(weights) != 0, targets.shape)
    if ignore_index is not None:
        counted = counted & (ids != ignore_index)
    wrong = ids[counted & ((ids < 0) | (ids >= vocab_size))]
    if wrong.size:
        raise ValueError(
            f"targets: expected classes from 0 to {vocab_size - 1}, got {wrong[0]} ({wrong.size} of {ids.size} targets "
            f"are no class). Targets that must not count have weight 0, or one number: ignore_index={wrong[0]}."
        )


def seq2seq_loss(
    model: Any,
    batch: Any,
    rng: PRNGKeyArray | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    ignore_index: int | None = None,
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
        ignore_index: a target that counts as weight 0, as in `cross_entropy`; bind it with `functools.partial`.

    Returns:
        `Losses`: sums over the batch. Give it to `make_train_step(optimizer, loss=seq2seq_loss)` and
        `make_evaluate(source, batch_size, evaluate_step=seq2seq_loss)`.

    Raises:
        ValueError: if shapes do not fit, or a target outside of `jit` is no class.
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
    options = {"label_smoothing": label_smoothing, "z_loss": z_loss, "ignore_index": ignore_index}
    return cross_entropy(model.unembed, hidden, batch.targets, batch.weights, **options)
