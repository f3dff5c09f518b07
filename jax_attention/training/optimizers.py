"""The optimiser as one optax chain: clip, AdamW with a decay mask, a schedule, and a guard against NaN and infinity."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.nn import Adapters
from jax_attention.training.accumulation import global_norm, with_float32_state

MATRICES = ("kernel", "embedding", "position", "token_type")
"""Names of parameters that weight decay applies to: matrices, not biases, norms or arrays of a rule."""
DECAY_SHARE = 0.2
"""Default share of all steps over which "wsd" decays the rate."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with warmup and a schedule.

        rate rises linearly over `warmup` steps to `learning_rate`, then follows the schedule down to `final_rate`

    Args:
        learning_rate: the peak.
        final_rate: the rate at the end of the schedule; None is a tenth of the peak. Must be None for "constant".
        schedule: "cosine", "wsd" (warmup, stable, linear decay over the last `decay_share` of the steps), "constant".
        warmup: the number of warmup steps; None is 100, or a tenth of a run shorter than 1000 steps.
        decay_share: the share of all steps over which "wsd" decays the rate; None is 0.2. Must be None otherwise.
        beta1: decay of the running mean of the gradient.
        beta2: decay of the running mean of the squared gradient.
        epsilon: added to the square root in the denominator.
        weight_decay: the coefficient of decoupled weight decay, on matrices only.
        clip: the largest global norm of the gradient; None for no clipping.

    Returns:
        A frozen configuration for `make_optimizer`.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> from jax_attention import training
        >>> schedule = training.make_schedule(training.OptimizerConfig(learning_rate=1e-3, warmup=10), steps=100)
        >>> [round(float(schedule(step)), 6) for step in (0, 9, 10, 100)]
        [0.0001, 0.001, 0.001, 0.0001]

    Reference:
        Loshchilov, Hutter (2019), "Decoupled weight decay regularization"; WSD: Hu et al. (2024), "MiniCPM".
    """

    learning_rate: float = 1e-3
    final_rate: float | None = None
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup: int | None = None
    decay_share: float | None = None
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        fail_unless(self.learning_rate > 0, f"learning_rate: expected a number > 0, got {self.learning_rate}.")
        fail_unless(
            self.schedule in ("cosine", "wsd", "constant"),
            f"schedule: expected 'cosine', 'wsd' or 'constant', got {self.schedule!r}.",
        )
        if self.warmup is not None:
            check_int("warmup", self.warmup, 0, "It is a number of steps.")
        used_by = {"final_rate": ("cosine", "wsd"), "decay_share": ("wsd",)}
        for name, schedules in used_by.items():
            fail_unless(
                getattr(self, name) is None or self.schedule in schedules,
                f"{name}: expected None with schedule={self.schedule!r}, which does not use it, got "
                f"{getattr(self, name)}. Leave it out.",
            )
        share = self.decay_share
        fail_unless(share is None or 0 < share <= 1, f"decay_share: expected a share in (0, 1], got {share}.")
        for name in ("final_rate", "weight_decay"):
            x = getattr(self, name)
            fail_unless(x is None or x >= 0, f"{name}: expected a number >= 0, got {x}.")
        fail_unless(self.epsilon > 0, f"epsilon: expected a number > 0, got {self.epsilon}.")
        fail_unless(
            self.clip is None or self.clip > 0,
            f"clip: expected a norm > 0 or None for no clipping, got {self.clip}.",
        )
        for name in ("beta1", "beta2"):
            beta = getattr(self, name)
            fail_unless(0 <= beta < 1, f"{name}: expected 0 <= beta < 1, got {beta}.")


@short_repr
class GuardState(NamedTuple):
    """The inner state, and the number of refused updates: in a row up to now, and in total."""

    inner: Any
    in_a_row: jax.Array
    total: jax.Array


def make_schedule(config: OptimizerConfig, *, steps: int) -> optax.Schedule:
    """Learning rate by step, counted from 0.

        warmup: peak (n + 1) / warmup,        cosine: final + (peak - final) (1 + cos(pi x)) / 2,  x from 0 to 1

    Args:
        config: the peak, the final rate, the warmup and the kind of schedule.
        steps: the number of steps of the whole run, where the schedule ends.

    Returns:
        A function from the step to the learning rate.

    Raises:
        ValueError: if the warmup is longer than the run.

    Example:
        >>> from jax_attention import training
        >>> wsd = training.OptimizerConfig(learning_rate=1.0, final_rate=0.0, schedule="wsd", warmup=0)
        >>> [round(float(training.make_schedule(wsd, steps=10)(n)), 2) for n in (0, 8, 9, 10)]
        [1.0, 1.0, 0.5, 0.0]
    """
    peak = config.learning_rate
    final = peak / 10 if config.final_rate is None else config.final_rate
    warmup = min(100, steps // 10) if config.warmup is None else config.warmup
    fail_unless(
        warmup <= steps,
        f"warmup: expected at most the {steps} steps of the run, got {warmup}. Train longer or warm up less.",
    )
    rest = max(steps - warmup, 1)
    if config.schedule == "cosine":
        main = optax.cosine_decay_schedule(peak, rest, alpha=final / peak)
    elif config.schedule == "wsd":
        share = DECAY_SHARE if config.decay_share is None else config.decay_share
        decay = max(round(share * steps), 1)
        main = optax.linear_schedule(peak, final, min(decay, rest), transition_begin=max(rest - decay, 0))
    else:
        main = optax.constant_schedule(peak)
    if warmup == 0:
        return main
    # (step + 1): the first update has a rate above 0, or it would change nothing.
    rise = lambda step: peak * (step + 1) / warmup  # noqa: E731
    return optax.join_schedules([rise, main], [warmup])


def make_optimizer(config: OptimizerConfig, *, steps: int) -> optax.GradientTransformation:
    """Chain clipping, AdamW, the schedule and the guard against updates that are not finite.

        g <- g min(1, clip / |g|);   update = -rate (m / (sqrt(v) + eps) + decay p);   refused if not finite

    The norm and the running means m and v are in at least float32, also for parameters in half precision.

    Args:
        config: an `OptimizerConfig`.
        steps: the number of steps of the whole run, for the schedule.

    Returns:
        An optax transformation over any pytree of parameters. Its updates have the dtypes of the gradients.

    Raises:
        ValueError: if the warmup is longer than the run.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import training
        >>> optimizer = training.make_optimizer(training.OptimizerConfig(), steps=1000)
        >>> params = {"kernel": jnp.ones((2, 2))}
        >>> updates, state = optimizer.update({"kernel": jnp.full((2, 2), jnp.nan)}, optimizer.init(params), params)
        >>> updates["kernel"].sum(), state.in_a_row
        (Array(0., dtype=float32), Array(1, dtype=int32))

    Reference:
        https://optax.readthedocs.io/en/latest/api/optimizers.html#optax.adamw
    """
    adamw = optax.adamw(
        make_schedule(config, steps=steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    clip = [] if config.clip is None else [optax.clip_by_global_norm(config.clip)]
    return refuse_nonfinite(with_float32_state(optax.chain(*clip, adamw)))


def refuse_nonfinite(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Skip steps with a NaN or infinity: zero updates, and an unchanged inner state.

        loss, gradient, update and state finite:  inner update;        else:  0, counted in `in_a_row` and `total`

    The gradient alone does not tell: Adam in float16 makes 0 / 0 of a gradient of 0, and an infinite running mean of a
    gradient of 300, after which the parameter never moves again. `optax.apply_if_finite` does the same for updates
    alone, inside a `lax.cond`, which keeps XLA from fusing the update with the guard.

    Args:
        inner: any optax transformation.

    Returns:
        An optax transformation whose state is a `GuardState`. Its `update(gradients, state, params, value=loss)` also
        refuses a loss that is not finite; the step of `make_train_step` gives it the objective.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from jax_attention import training
        >>> guarded = training.refuse_nonfinite(optax.sgd(1.0))
        >>> guarded.update(jnp.array([1.0, jnp.inf]), guarded.init(jnp.zeros(2)))[0]
        Array([0., 0.], dtype=float32)

    Reference:
        https://optax.readthedocs.io/en/latest/api/transformations.html#optax.apply_if_finite;
        https://github.com/google-deepmind/optax/issues/1754: finite gradients with updates of NaN.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> GuardState:
        return GuardState(inner.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(gradients: Any, state: GuardState, params: Any = None, **extra: Any) -> tuple[Any, GuardState]:
        updates, new_inner = inner.update(gradients, state.inner, params, **extra)
        # A norm is finite only if every entry is; an overflow of the norm itself is refused too.
        good = jnp.isfinite(global_norm(gradients)) & _all_finite((updates, extra.get("value")))
        good = good & _all_finite(_narrow_changes(new_inner, state.inner))
        updates = jax.tree.map(lambda x: jnp.where(good, x, jnp.zeros((), x.dtype)), updates)
        new_inner = jax.tree.map(lambda new, old: jnp.where(good, new, old), new_inner, state.inner)
        bad = 1 - good.astype(jnp.int32)
        return updates, GuardState(new_inner, (state.in_a_row + 1) * bad, state.total + bad)

    return optax.GradientTransformationExtraArgs(init, update)


def _all_finite(tree: Any) -> jax.Array:
    """Whether no floating-point number of a pytree is NaN or infinite, bool `[]`."""
    numbers = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    return functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(x)) for x in numbers], jnp.bool_(True))


def _narrow_changes(new: Any, old: Any) -> list[jax.Array]:
    """The float16 arrays of a new state, with 0 where the old one was infinite already, as a smallest loss may be.

    Only they can overflow unseen: squares of a gradient whose norm is finite fit into float32 and bfloat16. To check
    these as well would add a quarter to the time of AdamW (6 million parameters, 2 cores).
    """
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
    return [jnp.where(jnp.isfinite(b), a, 0) for a, b in pairs if jnp.result_type(a) == jnp.float16]


def decay_mask(params: Any) -> Any:
    """Which parameters weight decay applies to: matrices, recognised by name, in stacked blocks too.

    Arrays inside a rule are not decayed; of adapters all are, as all of their factors are matrices. Names decide and
    not the number of axes, because biases of stacked blocks have two axes as well.
    """
    if isinstance(params, Adapters):
        return jax.tree.map(lambda _: True, params)

    def is_matrix(path: tuple, _: Any) -> bool:
        names = {str(getattr(entry, "name", getattr(entry, "key", entry))) for entry in path}
        return bool(names & set(MATRICES)) and not names & {"rule", "mods"}

    return jax.tree_util.tree_map_with_path(is_matrix, params)
