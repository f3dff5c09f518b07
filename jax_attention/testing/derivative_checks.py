"""Checks of derivatives: both modes and the second order, by operands and arrays, against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jax_attention.core.struct import UserFunction, find_parts
from jax_attention.testing.report import check_equal
from jax_attention.testing.trial import Trial, fast_jit

Point = dict[str, jax.Array]
STEP, TOLERANCE = 1e-5, 1e-6
"""Of a central difference in float64: its truncation error STEP^2 and its rounding error 1e-16 / STEP are both far
below the tolerance."""


def derivatives(trial: Trial, **options: Any) -> Callable[[Point, Point], Point]:
    """A compiled function of point and direction: loss, gradients, and the derivatives of both in that direction.

    The first is by forward mode, the second by forward over reverse mode. `options` are those of `attend`.
    """

    @fast_jit
    def run(point: Point, direction: Point) -> Point:
        def loss(point: Point) -> jax.Array:
            return trial.loss(trial.attend_at(point, **options))

        value, tangent = jax.jvp(loss, (point,), (direction,))
        gradient, second = jax.jvp(jax.grad(loss), (point,), (direction,))
        return {
            "the loss": value,
            "the derivative of the loss (jvp)": tangent,
            **{f"the gradient by {name}": x for name, x in gradient.items()},
            **{f"the second derivative by {name}": x for name, x in second.items()},
        }

    return run


def finite_differences(trial: Trial) -> str:
    """Each derivative is the limit of a difference quotient, in the direction of each operand and of each array."""
    run, point = derivatives(trial), trial.point
    for name in point:
        direction = {other: x * (other == name) for other, x in trial.direction().items()}
        ahead, back = (
            run({other: x + side * STEP * direction[other] for other, x in point.items()}, direction)
            for side in (1, -1)
        )
        here = run(point, direction)
        slope = {key: (np.asarray(ahead[key]) - np.asarray(back[key])) / (2 * STEP) for key in here}
        expected = {
            "the derivative of the loss (jvp)": slope["the loss"],
            f"the gradient by {name} times a direction": slope["the loss"],
            **{f"the second derivative by {other}": slope[f"the gradient by {other}"] for other in point},
        }
        gradient = np.vdot(here[f"the gradient by {name}"], direction[name])
        actual = {**here, f"the gradient by {name} times a direction": gradient}
        cure = (
            "If you wrote a derivative yourself, it is not that of the function (or has only one mode: use custom_jvp)."
        )
        check_equal({key: actual[key] for key in expected}, expected, f"{trial}, direction {name}", cure, TOLERANCE)
    hidden = " (functions hide their arrays: make parts of them)" if find_parts(UserFunction, trial.rule) else ""
    return f"by {', '.join(point)}{hidden}"
