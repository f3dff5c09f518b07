"""One step of training and one of evaluation, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.core.explicit_axes import reshard, rows_sharding
from jax_attention.core.struct import data_field, struct
from jax_attention.models.protocols import Seq2Seq, TokenModel
from jax_attention.nn import apply_adapters
from jax_attention.training.accumulation import global_norm, widen
from jax_attention.training.losses import Losses, cross_entropy

if TYPE_CHECKING:
    from jaxtyping import PRNGKeyArray

Metrics = dict[str, jax.Array]


@struct
class TrainState:
    """Everything that training changes, as one pytree.

        (model, optimizer_state, step, rng)  --batch-->  (model', optimizer_state', step + 1, rng)

    Args:
        model: a module, or any pytree of parameters that the loss accepts; `nn.Adapters` over a frozen base.
        optimizer_state: the state of the optax transformation.
        step: int32 `[]`, the number of steps taken.
        rng: a JAX random key; step n draws from `fold_in(rng, n)`, so the key itself never changes.

    Example:
        >>> import jax, optax
        >>> from jax_attention import models, training
        >>> model = models.create(models.tiny(vocab_size=11, width=16))
        >>> training.init_state(model, optax.sgd(0.1), rng=jax.random.key(1)).step
        Array(0, dtype=int32)
    """

    model: Any = data_field()
    optimizer_state: Any = data_field()
    step: jax.Array = data_field()
    rng: jax.Array = data_field()


def init_state(model: Any, optimizer: optax.GradientTransformation, *, rng: PRNGKeyArray) -> TrainState:
    """Make the state before the first step.

        TrainState(model, optimizer.init(model), 0, rng)

    Args:
        model: a module or pytree of parameters; `nn.Adapters` to train adapters only.
        optimizer: an optax transformation.
        rng: a JAX random key for dropout.

    Returns:
        A `TrainState`. A train step that donates it donates the model's buffers too.

    Example:
        >>> import jax, optax
        >>> from jax_attention import training
        >>> training.init_state({"w": jax.numpy.ones(2)}, optax.sgd(0.1), rng=jax.random.key(0)).step
        Array(0, dtype=int32)
    """
    return TrainState(model, optimizer.init(model), jnp.zeros((), jnp.int32), rng)


def language_model_loss(
    model: Any,
    batch: Any,
    rng: PRNGKeyArray | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    ignore_index: int | None = None,
) -> Losses:
    """Cross-entropy of a batch's targets under the model.

        sum over positions of  weights (-log p(target | tokens up to here))

    Args:
        model: a `TransformerLM`, or anything with its `hidden` and `unembed`.
        batch: has `tokens`, `targets`, `weights` `[B, T]`, and `positions` and `segment_ids`, `[B, T]` or None.
        rng: a JAX random key for dropout; None is no dropout.
        label_smoothing: the share of the target that is spread over the vocabulary.
        z_loss: the coefficient of the squared logsumexp.
        ignore_index: a target that counts as weight 0, as in `cross_entropy`; bind it with `functools.partial` for
            `make_train_step(loss=)` and `make_evaluate(evaluate_step=)`.

    Returns:
        `Losses`: sums `[]` over the batch.

    Raises:
        ValueError: if shapes do not fit, or a target outside of `jit` is no class.
        TypeError: if the model has no `hidden`, or reads a source.

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
        f"model: expected a language model with hidden, such as models.TransformerLM, got {type(model).__name__}. For "
        "other models pass a loss function to make_train_step and make_evaluate.",
        TypeError,
    )
    hidden, _ = model.hidden(batch.tokens, positions=batch.positions, segment_ids=batch.segment_ids, rng=rng)
    options = {"label_smoothing": label_smoothing, "z_loss": z_loss, "ignore_index": ignore_index}
    return cross_entropy(model.unembed, hidden, batch.targets, batch.weights, **options)


def make_train_step(
    optimizer: optax.GradientTransformation,
    *,
    schedule: optax.Schedule | None = None,
    accumulate: int = 1,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    loss: Callable[..., Losses] = language_model_loss,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Make a pure training step.

        g = (sum over microbatches of grad objective) / (sum of weights);   model' = model + optimizer(g)

    Gradients of microbatches are summed before they are divided by the weights, so every target counts the same,
    however targets and padding are spread over the microbatches.

    Args:
        optimizer: an optax transformation; `make_optimizer` also refuses updates that are not finite.
        schedule: the schedule of the optimiser, only for the metric `learning_rate`.
        accumulate: the number of microbatches of a batch, a divisor of its rows.
        label_smoothing: the share of the target that is spread over the vocabulary.
        z_loss: the coefficient of the squared logsumexp.
        loss: `(model, batch, rng, label_smoothing=, z_loss=) -> Losses`.

    Returns:
        `train_step(state, batch) -> (state, metrics)`; jit it with the state donated, or pass it to `fit`. Metrics are
        scalars: `loss` (nats per target), `objective`, `grad_norm`, `tokens`, `skipped`, `skipped_in_a_row`,
        `learning_rate`. `train_step(state, batch, base)` trains the `nn.Adapters` in `state.model` and only reads the
        base.

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
        https://github.com/google-deepmind/optax/issues/472: accumulation that averages
        microbatches with different numbers of targets.
    """
    check_int("accumulate", accumulate, 1, "It is the number of microbatches.")
    fail_unless(0 <= label_smoothing < 1, f"label_smoothing: expected 0 <= a < 1, got {label_smoothing}.")
    fail_unless(z_loss >= 0, f"z_loss: expected a coefficient >= 0, got {z_loss}.")
    update = optax.with_extra_args_support(optimizer).update

    def train_step(state: TrainState, batch: Any, base: Any = None) -> tuple[TrainState, Metrics]:
        def objective(model: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, Losses]:
            losses = loss(merged_model(base, model), batch, rng, label_smoothing=label_smoothing, z_loss=z_loss)
            return losses.objective, losses

        gradient = jax.grad(objective, has_aux=True)
        gradients, losses = _sum_gradients(
            gradient, accumulate, state.model, batch, jax.random.fold_in(state.rng, state.step)
        )
        # A batch of padding only has weight 0: 0 / 0 would make every parameter NaN.
        weight = jnp.where(losses.weight > 0, losses.weight, 1)
        gradients = jax.tree.map(lambda g: g / weight.astype(g.dtype), gradients)
        grad_norm, value = global_norm(gradients), losses.objective / weight
        # Rounded once, after all sums: a wider gradient would change the dtypes of an optimiser's state.
        gradients = jax.tree.map(lambda g, p: g.astype(jnp.result_type(p)), gradients, state.model)
        with jax.numpy_dtype_promotion("standard"):  # AdamW of optax raises a Python number to an integer array
            updates, optimizer_state = update(gradients, state.optimizer_state, state.model, value=value)
        model = optax.apply_updates(state.model, updates)
        metrics = {
            "loss": losses.nats / weight,
            "objective": value,
            "grad_norm": grad_norm,
            "tokens": losses.weight,
            **_skip_counts(optimizer_state, state.optimizer_state),
        }
        if schedule is not None:
            metrics["learning_rate"] = jnp.asarray(schedule(state.step), jnp.float32)
        return TrainState(model, optimizer_state, state.step + 1, state.rng), metrics

    return train_step


def merged_model(base: Any, model: Any) -> Any:
    """The model that is trained, or with a base the base with the adapters that are trained."""
    return model if base is None else apply_adapters(base, model)


@jax.jit
def evaluate_step(model: Any, batch: Any) -> Losses:
    """Loss of one batch without dropout, as sums that can be added over batches.

        Losses(objective, nats, weight) with objective = nats

    Args:
        model: a `TransformerLM`.
        batch: as in `language_model_loss`.

    Returns:
        `Losses`: sums `[]` over the batch.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import data, models, training
        >>> batch = data.Batch(*(jnp.zeros((2, 5), int),) * 2, jnp.ones((2, 5)))
        >>> model = models.create(models.tiny(vocab_size=11, width=16))
        >>> bool(training.evaluate_step(model, batch).nats > 0)
        True
    """
    return language_model_loss(model, batch)


def _sum_gradients(gradient: Callable, accumulate: int, model: Any, batch: Any, rng: jax.Array) -> tuple[Any, Losses]:
    """Sum the gradient and the losses over microbatches, one after the other, so that one is in memory at a time.

    The sums are in at least float32, whatever the dtype of the parameters or of a user's loss.
    """

    def wide_gradient(batch: Any, rng: jax.Array) -> tuple[Any, Losses]:
        return widen(gradient(model, batch, rng))

    if accumulate == 1:
        return wide_gradient(batch, rng)
    microbatches = _split(batch, accumulate)

    def add(total: Any, entry: tuple[Any, jax.Array]) -> tuple[Any, None]:
        microbatch, i = entry
        return jax.tree.map(jnp.add, total, wide_gradient(microbatch, jax.random.fold_in(rng, i))), None

    shapes = jax.eval_shape(wide_gradient, jax.tree.map(lambda x: x[0], microbatches), rng)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, (microbatches, jnp.arange(accumulate)))[0]


def _split(batch: Any, count: int) -> Any:
    """Split the rows of a batch into microbatches: `[B, ...] -> [count, B / count, ...]`."""
    rows = jax.tree.leaves(batch)[0].shape[0]
    fail_unless(rows % count == 0, f"accumulate: expected a divisor of the batch's {rows} rows, got {count}.")
    # Every count-th row: consecutive rows would be on few of the devices, and would have to be moved to the others.
    # With explicit axes the rows must be whole first: a sharded dimension cannot be divided into two.
    whole = jax.tree.map(lambda x: reshard(x, rows_sharding(x, -x.ndim)), jax.tree.map(jnp.asarray, batch))
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(rows // count, count, *x.shape[1:]), 0, 1), whole)


def _skip_counts(new: Any, old: Any) -> Metrics:
    """Metrics of skipped updates from two states of an optimiser; zeros for one that does not count them."""
    if not hasattr(new, "in_a_row"):
        return {"skipped": jnp.zeros((), jnp.int32), "skipped_in_a_row": jnp.zeros((), jnp.int32)}
    return {"skipped": new.total - old.total, "skipped_in_a_row": new.in_a_row}
