"""The loss of sequence-to-sequence models, with teacher forcing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jax_attention.core.checks import fail_unless
from jax_attention.models.protocols import Seq2Seq
from jax_attention.training.losses import Losses, cross_entropy

if TYPE_CHECKING:
    from jaxtyping import PRNGKeyArray


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
