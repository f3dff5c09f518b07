"""Checks of the output: every shape, every dtype, large scores, `jit`, and one query at a time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.testing.jaxprs import equations
from jax_attention.testing.report import CheckFailed, check_equal, check_finite
from jax_attention.testing.trial import Trial, fast_jit, wave

LARGE = 30.0
"""Queries and keys times this have products of about 1,000: exp(1,000) overflows."""


def every_shape(trial: Trial) -> str:
    """The output is finite for every T and S; `attend` itself checks its shape and dtype."""
    for one in trial.in_every_shape():
        check_finite({"the output": fast_jit(one.attend)(*one.operands)}, one, "Look at the first line of the rule.")
    return ", ".join(f"{T} x {S}" for T, S in trial.shapes)


def jit_and_eager(trial: Trial) -> None:
    """Two calls, and a third under `jit`, give one result."""
    first, second = trial.attend(*trial.operands), trial.attend(*trial.operands)
    cure = "A part must be pure: no random numbers, counters or caches of its own."
    check_equal({"a second call": second}, {"a second call": first}, trial, cure, tolerance=0.0)
    compiled = fast_jit(trial.attend)(*trial.operands)
    check_equal({"the compiled output": compiled}, {"the compiled output": first}, trial, cure)


def one_query_at_a_time(trial: Trial) -> None:
    """A query alone, at its position, gets the row of the whole output, as in decoding step by step."""
    rows = sorted({0, trial.T // 2, trial.T - 1})

    @fast_jit
    def results(*operands: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        output = trial.attend(*operands)
        alone, whole = {}, {}
        for t in rows:
            some, options = trial.take("T", [t])
            alone[f"the output of query {t}"] = trial.attend(*some, **options)
            whole[f"the output of query {t}"] = output[..., t : t + 1, :, :]
        return alone, whole

    cure = "A query must not depend on other queries, and positions come as q_pos and k_pos: do not count rows."
    check_equal(*results(*trial.operands), trial, cure)


def large_scores(trial: Trial) -> None:
    """Output and gradients stay finite in float32 for scores of about 1,000."""
    trial = trial.replace(dtype="float32")
    point = {**trial.point, **{name: LARGE * trial.point[name] for name in ("query", "key")}}
    gradients, output = fast_jit(jax.grad(lambda x: _with_aux(trial, x), has_aux=True))(point)
    cure = "Subtract the largest score of a row before exp (row_max), and select by where before exp, not after it."
    results = {"the output": output, **{f"the gradient by {name}": x for name, x in gradients.items()}}
    check_finite(results, f"{trial}, query and key times {LARGE:g}", cure)


def _with_aux(trial: Trial, point: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    output = trial.attend_at(point)
    return trial.loss(output), output


def dtypes(trial: Trial) -> str:
    """Float32 and bfloat16 operands give the output of the widest dtype, as far as rounding lets them."""
    cure = "Compute in the dtype of the scores, z.dtype, which is at least float32; never in a narrower one."
    narrow = [dtype for dtype in ("float32", "bfloat16") if dtype != trial.dtype]
    for dtype in narrow:
        one = trial.replace(dtype=dtype)
        exact = tuple(x.astype(trial.dtype) for x in one.operands)
        output = fast_jit(one.attend)(*one.operands)
        nearby = (x * (1 + STEP * wave(x.shape, x.dtype)) for x in exact)
        expected, moved = (run(*x) for run in [fast_jit(trial.attend)] for x in (exact, nearby))
        if output.dtype != dtype:
            raise CheckFailed(f"an output of {output.dtype}", one, cure)
        sensitivity = float(np.abs(moved - expected).max(initial=0.0)) / STEP
        roundings = 64 * jnp.finfo("float32").eps * (1 + sensitivity) + jnp.finfo(dtype).eps
        check_equal({"the output": output}, {"the output": expected}, one, cure, tolerance=float(roundings))
    return ", ".join([trial.dtype, *narrow])


STEP = 1e-3
"""Relative change of the operands that measures how much a rule magnifies their roundings."""


def casts_down(trial: Trial) -> bool:
    """Whether anything of float64 is cast to float32 on the way from float64 operands to the output."""
    return any(
        equation.primitive.name == "convert_element_type"
        and equation.invars[0].aval.dtype == np.float64
        and equation.outvars[0].aval.dtype == np.float32
        for equation in equations(trial.attend, *trial.operands)
    )
