"""One step of training, and of evaluation, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.core.struct import data_field, struct
from jax_attention.models.protocols import Seq2Seq, TokenModel
from jax_attention.nn import apply_adapters
from jax_attention.training.losses import Losses, cross_entropy

if TYPE_CHECKING:
    from jaxtyping import PRNGKeyArray

Metrics = dict[str, jax.Array]


@struct
class TrainState:
    """Everything that training changes, as one pytree.

        (model, optimizer_state, step, rng)  --batch-->  (model', optimizer_state', step + 1, rng)

    Args:
        model: a module, or any pytree of parameters that the loss understands; `nn.Adapters` for a base that stays.
        optimizer_state: of the optax transformation.
        step: int32 `[]`, how many steps were taken.
        rng: a JAX random key; step n draws from `fold_in(rng, n)`, so the key itself never changes.

    Returns:
        A pytree.

    Raises:
        Nothing.

    Example:
        >>> import jax, optax
        >>> from jax_attention import models, training
        >>> model = models.create(models.tiny(vocab_size=11, width=16))
        >>> training.init_state(model, optax.sgd(0.1), rng=jax.random.key(1)).step
        Array(0, dtype=int32)

    Reference:
        https://flax.readthedocs.io: `TrainState`.
    """

    model: Any = data_field()
    optimizer_state: Any = data_field()
    step: jax.Array = data_field()
    rng: jax.Array = data_field()


def init_state(model: Any, optimizer: optax.GradientTransformation, *, rng: PRNGKeyArray) -> TrainState:
    """The state before the first step.

        TrainState(model, optimizer.init(model), 0, rng)

    Args:
        model: a module or pytree of parameters; to train adapters alone, those.
        optimizer: an optax transformation.
        rng: a JAX random key for dropout.

    Returns:
        The state. A train step that donates it takes the model's buffers too.

    Raises:
        Nothing.

    Example:
        >>> import jax, optax
        >>> from jax_attention import training
        >>> training.init_state({"w": jax.numpy.ones(2)}, optax.sgd(0.1), rng=jax.random.key(0)).step
        Array(0, dtype=int32)

    Reference:
        See `TrainState`.
    """
    return TrainState(model, optimizer.init(model), jnp.zeros((), jnp.int32), rng)


def language_model_loss(
    model: Any, batch: Any, rng: PRNGKeyArray | None = None, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> Losses:
    """Cross-entropy of a batch's targets under the model.

        sum over places of  weights (-log p(target | tokens up to here))

    Args:
        model: a `TransformerLM`, or anything with its `hidden` and `unembed`.
        batch: has `tokens`, `targets`, `weights` `[B, T]`, and `positions`, `segment_ids` or None.
        rng: for dropout; None is no dropout.
        label_smoothing: share of the target spread over the vocabulary.
        z_loss: coefficient of the squared logsumexp.

    Returns:
        `Losses`: sums over the batch.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if the model has no `hidden`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import data, models, training
        >>> batch = data.Batch(*(jnp.zeros((2, 5), int),) * 2, jnp.ones((2, 5)))
        >>> training.language_model_loss(models.create(models.tiny(vocab_size=11, width=16)), batch).weight
        Array(10., dtype=float32)

    Reference:
        Bengio et al. (2003), "A neural probabilistic language model".
    """
    fail_unless(
        isinstance(model, TokenModel) and not isinstance(model, Seq2Seq),
        f"model: expected a language model with hidden, such as models.TransformerLM, got {type(model).__name__}. Give "
        "make_train_step and make_evaluate a loss of your own.",
        TypeError,
    )
    hidden, _ = model.hidden(batch.tokens, positions=batch.positions, segment_ids=batch.segment_ids, rng=rng)
    return cross_entropy(
        model.unembed, hidden, batch.targets, batch.weights, label_smoothing=label_smoothing, z_loss=z_loss
    )


def make_train_step(
    optimizer: optax.GradientTransformation,
    *,
    schedule: optax.Schedule | None = None,
    accumulate: int = 1,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    loss: Callable[..., Losses] = language_model_loss,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """A pure training step.

        g = (sum over microbatches of grad objective) / (sum of weights);   model' = model + optimizer(g)

    Gradients of microbatches are summed before they are divided, so every target counts the same however targets and
    padding fall into microbatches.

    Args:
        optimizer: an optax transformation; `make_optimizer` also refuses updates that are not finite.
        schedule: for the metric `learning_rate` alone.
        accumulate: number of microbatches that a batch is cut into, a divisor of its rows.
        label_smoothing: share of the target spread over the vocabulary.
        z_loss: coefficient of the squared logsumexp.
        loss: `(model, batch, rng, label_smoothing=, z_loss=) -> Losses`.

    Returns:
        `train_step(state, batch) -> (state, metrics)`, to be jitted by the caller, with the state donated. Metrics
        are scalars: `loss` (nats per target), `objective`, `grad_norm`, `tokens`, `skipped`, `skipped_in_a_row`,
        `learning_rate`. `train_step(state, batch, base)` trains `nn.Adapters` in `state.model`; the base is only read.

    Raises:
        ValueError: if a number is out of range; by the step, if `accumulate` does not divide the rows of the batch.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention import data, models, training
        >>> optimizer = training.make_optimizer(training.OptimizerConfig(warmup=0), steps=10)
        >>> model = models.create(models.tiny(vocab_size=11, width=16))
        >>> state = training.init_state(model, optimizer, rng=jax.random.key(0))
        >>> batch = data.Batch(*(jnp.zeros((2, 5), int),) * 2, jnp.ones((2, 5)))
        >>> state, metrics = jax.jit(training.make_train_step(optimizer))(state, batch)
        >>> state.step, metrics["tokens"]
        (Array(1, dtype=int32), Array(10., dtype=float32))

    Reference:
        https://github.com/google-deepmind/optax/issues/472: accumulation.
    """
    check_int("accumulate", accumulate, 1, "It is the number of microbatches.")
    fail_unless(0 <= label_smoothing < 1, f"label_smoothing: expected 0 <= a < 1, got {label_smoothing}.")
    fail_unless(z_loss >= 0, f"z_loss: expected a coefficient >= 0, got {z_loss}.")

    def train_step(state: TrainState, batch: Any, base: Any = None) -> tuple[TrainState, Metrics]:
        def objective(model: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, Losses]:
            losses = loss(over(base, model), batch, rng, label_smoothing=label_smoothing, z_loss=z_loss)
            return losses.objective, losses

        gradient = jax.grad(objective, has_aux=True)
        gradients, losses = _summed(gradient, accumulate, state.model, batch, jax.random.fold_in(state.rng, state.step))
        weight = jnp.where(losses.weight > 0, losses.weight, 1)
        gradients = jax.tree.map(lambda g: g / weight.astype(g.dtype), gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.model)
        model = optax.apply_updates(state.model, updates)
        metrics = {
            "loss": losses.nats / weight,
            "objective": losses.objective / weight,
            "grad_norm": optax.tree.norm(gradients),
            "tokens": losses.weight,
            **_refused(optimizer_state, state.optimizer_state),
        }
        if schedule is not None:
            metrics["learning_rate"] = jnp.asarray(schedule(state.step), jnp.float32)
        return TrainState(model, optimizer_state, state.step + 1, state.rng), metrics

    return train_step


def over(base: Any, model: Any) -> Any:
    """The model that training speaks of: what is trained, or a base with the adapters that are."""
    return model if base is None else apply_adapters(base, model)


@jax.jit
def evaluate_step(model: Any, batch: Any) -> Losses:
    """The loss of one batch, without dropout: sums, to be added over batches.

        Losses(objective, nats, weight) with objective = nats

    Args:
        model: a `TransformerLM`.
        batch: as in `language_model_loss`.

    Returns:
        `Losses`.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import data, models, training
        >>> batch = data.Batch(*(jnp.zeros((2, 5), int),) * 2, jnp.ones((2, 5)))
        >>> model = models.create(models.tiny(vocab_size=11, width=16))
        >>> bool(training.evaluate_step(model, batch).nats > 0)
        True

    Reference:
        See `language_model_loss`.
    """
    return language_model_loss(model, batch)


def _summed(gradient: Callable, accumulate: int, model: Any, batch: Any, rng: jax.Array) -> tuple[Any, Losses]:
    """The gradient's sum over microbatches, one after the other."""
    if accumulate == 1:
        return gradient(model, batch, rng)
    parts = _microbatches(batch, accumulate)

    def add(total: Any, entry: tuple[Any, jax.Array]) -> tuple[Any, None]:
        part, i = entry
        return jax.tree.map(jnp.add, total, gradient(model, part, jax.random.fold_in(rng, i))), None

    shapes = jax.eval_shape(gradient, model, jax.tree.map(lambda x: x[0], parts), rng)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, (parts, jnp.arange(accumulate)))[0]


def _microbatches(batch: Any, count: int) -> Any:
    rows = jax.tree.leaves(batch)[0].shape[0]
    fail_unless(rows % count == 0, f"accumulate: expected a divisor of the batch's {rows} rows, got {count}.")
    # Interleaved, so that rows sharded over devices stay where they are.
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(rows // count, count, *x.shape[1:]), 0, 1), batch)


def _refused(new: Any, old: Any) -> Metrics:
    if not hasattr(new, "in_a_row"):
        return {"skipped": jnp.zeros((), jnp.int32), "skipped_in_a_row": jnp.zeros((), jnp.int32)}
    return {"skipped": new.total - old.total, "skipped_in_a_row": new.in_a_row}
