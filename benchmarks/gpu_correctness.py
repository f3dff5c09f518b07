"""Is it right on this device? Every rule against float64: forward, gradients, jvp, Hessian products.

Outputs are judged by NumPy (the loops of tests/support/oracle.py, which share no code with the library), derivatives
by the dense sentence in float64 on the CPU. `highest` is float32 with full products, `default` what JAX does by itself, which
is TF32 on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu_cases import softmax_attention
from jax_attention import Blockwise, attend, attend_heads, masks
from tests.support import cases, oracle

HEADS = 2
TOLERANCE = {"highest": 1e-4, "default": 2e-2, "float16": 1e-2, "bfloat16": 4e-2}
"""Largest difference over 1 + largest entry, Hessian products included."""

IMPLEMENTATIONS = {"reference": "reference", "blockwise": Blockwise(tile=(16, 16))}
ANSWERS = ("output", "gradient", "gradient", "gradient", "jvp", "Hessian product", "Hessian product", "Hessian product")


def kernel_masks() -> dict[str, masks.Mask | None]:
    """What the cuDNN kernel takes; lengths of two sequences, some of them empty."""
    return {
        "no mask": None,
        "causal": masks.causal(),
        "window": masks.sliding_window(20),
        "lengths": masks.lengths(np.array([[0], [50]]), np.array([[70], [31]])),
        "causal & lengths": masks.causal() & masks.lengths(np.array([[33], [0]])),
    }


def checks(smoke: bool = False) -> Iterator[tuple[str, Callable[[], dict]]]:
    """Every check by name: the kernel's first, then all rules."""
    for mask in kernel_masks():
        for dtype in ("bfloat16", "float16"):
            for rows in (64, 77):
                yield f"cudnn, {mask}, T={rows}, {dtype}", partial(_tried, _kernel, mask, dtype, rows)
    shape = cases.Shape(6, 6) if smoke else cases.Shape(40, 40)
    for precision in ("highest", "default"):
        for part in cases.PARTS:
            for case in cases.PARTS[part]:
                for name in IMPLEMENTATIONS:
                    run = partial(_tried, _rule, part, case, shape, name, precision)
                    yield f"{name}, {part} {case.name}, {precision}", run


SMOKE = ("cudnn, causal, T=64, bfloat16", "reference, mod alibi, highest", "blockwise, mod alibi, highest")
"""A few of them."""


def _tried(check: Callable[..., dict], *arguments: Any) -> dict:
    try:
        return check(*arguments)
    except Exception as error:
        return {"right": None, "failed": f"{type(error).__name__}: {error}"[:600]}


def _rule(part: str, case: cases.Case, shape: cases.Shape, name: str, precision: str) -> dict:
    """One part in an otherwise usual rule."""
    expected = _expected(part, case, shape)
    found = _answers(IMPLEMENTATIONS[name], part, case, shape, np.float32, precision)
    return _verdict(zip(ANSWERS, found, expected, strict=True), TOLERANCE[precision])


@cache
def _expected(part: str, case: cases.Case, shape: cases.Shape) -> list[np.ndarray]:
    """The same from the judges."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        expected = _answers("reference", part, case, shape, np.float64, None)
    return [np.stack([_by_numpy(part, case, shape, head) for head in range(HEADS)]), *expected[1:]]


def _drawn(part: str, case: cases.Case, shape: cases.Shape) -> tuple[Any, Callable, tuple]:
    """Our value, the oracle's, and operands `[HEADS, rows, features]`: the same float32 numbers every time."""
    draw = cases.Draw(np.random.default_rng(0), shape, batch_shape=(HEADS,))
    own, judge = case.build(draw)
    return own, judge, cases.operands(draw, own if part == "score" else None)


def _answers(
    implementation: Any, part: str, case: cases.Case, shape: cases.Shape, dtype: Any, precision: str | None
) -> list[np.ndarray]:
    """The output and its derivatives, as `ANSWERS` names them."""
    own, _, operands = _drawn(part, case, shape)
    rule = {"mask": masks.causal(), **cases.rule_arguments(part, own)}
    precision = None if precision == "default" else precision

    def output(*operands: jax.Array) -> jax.Array:
        return attend(*operands, **rule, precision=precision, implementation=implementation)

    def all_of(*operands: jax.Array) -> tuple:
        gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(output(*x))), (0, 1, 2))
        directions = tuple(jnp.cos(3 * x) for x in operands)
        jvp = jax.jvp(output, operands, directions)[1]
        return output(*operands), gradient(*operands), jvp, jax.jvp(gradient, operands, directions)[1]

    arrays = [jnp.asarray(x.array.astype(dtype)) for x in operands]
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(jax.jit(all_of)(*arrays))]


def _by_numpy(part: str, case: cases.Case, shape: cases.Shape, head: int) -> np.ndarray:
    _, judge, operands = _drawn(part, case, shape)
    rule = {"score": oracle.scaled_dot(), "mask": oracle.causal(), **cases.rule_arguments(part, judge(head))}
    return oracle.attend(*(x[(head,)] for x in operands), **rule).output


def _kernel(mask: str, dtype: str, rows: int) -> dict:
    """The cuDNN kernel, four heads on two, forward and gradients."""
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal((2, rows, heads, 64)), dtype) for heads in (4, 2, 2)]
    rule = {"mask": kernel_masks()[mask]}

    def all_of(name: str, *arrays: jax.Array) -> list[jax.Array]:
        run = lambda *x: attend_heads(*x, **rule, implementation=name)  # noqa: E731
        gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(run(*x).astype(jnp.float32))), (0, 1, 2))
        return [run(*arrays), *gradient(*arrays)]

    found = jax.jit(partial(all_of, "cudnn"))(*arrays)
    exact = [np.asarray(x, np.float64) for x in arrays]
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        expected = jax.jit(partial(all_of, "reference"))(*exact)
    expected[0] = softmax_attention(*exact, rule["mask"])
    return _verdict(zip(ANSWERS, found, expected, strict=False), TOLERANCE[dtype])


def _verdict(pairs: Any, tolerance: float) -> dict:
    errors: dict[str, float] = {}
    for name, found, expected in pairs:
        found, expected = np.asarray(found, np.float64), np.asarray(expected)
        error = float(np.max(np.abs(found - expected)) / (1 + np.max(np.abs(expected))))
        errors[name] = max(errors.get(name, 0.0), error if np.isfinite(error) else float("inf"))
    return {"right": all(error <= tolerance for error in errors.values()), "tolerance": tolerance, "errors": errors}
