"""Comparison of an attention rule with an attention function in PyTorch: outputs and gradients on the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.attention.attend import attend
from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.html import show_table
from jax_attention.interop.parity.difference import Difference, difference
from jax_attention.interop.torch.tensors import highest_precision, import_torch, to_jax, to_numpy, to_tensor

if TYPE_CHECKING:
    from jaxtyping import Array, Float

OPERANDS = ("query", "key", "value")
RESULTS = ("output", *OPERANDS)
"""The output, and the gradient to each operand."""
TITLES = ("", "max_abs", "allowed", "max_rel", "ulps", "cosine")
ROUNDINGS = 32
"""Rounding errors of one long sum that are allowed. Either side has a dozen such sums: scores, normalizer, output and
their derivatives. Correct rules used at most 0.4 of the tolerance, in 12 draws each and with scores up to about 50.
"""


class Comparison(NamedTuple):
    """The result of `compare_rule`; `str()` of it is a table."""

    output: Difference
    gradients: dict[str, Difference]
    tolerance: float
    scales: dict[str, float]
    """Scale of "output" and of the gradient to each operand, which `tolerance` is relative to: 1 + the largest expected
    number + the change of the result if every operand changed by its own size.
    """

    @property
    def rows(self) -> dict[str, Difference]:
        """All differences: "output", and the gradient under the name of its operand."""
        return {"output": self.output, **self.gradients}

    @property
    def equal(self) -> bool:
        """Whether rounding explains every distance."""
        return all(row.max_abs <= self.allowed(name) for name, row in self.rows.items())

    def allowed(self, name: str) -> float:
        """The largest distance that rounding explains, for "output" or the gradient to an operand."""
        return self.tolerance * self.scales[name]

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as text, under `TITLES`."""
        return [
            (
                name if name == "output" else f"gradient of {name}",
                *(f"{x:.1e}" for x in (row.max_abs, self.allowed(name), row.max_rel)),
                f"{row.ulps:.3g}",
                f"{row.cosine:.9f}",
            )
            for name, row in self.rows.items()
        ]

    def __str__(self) -> str:
        lines = ["{:<20} {:>9} {:>9} {:>9} {:>9} {:>13}".format(*cells) for cells in (TITLES, *self.cells())]
        return "\n".join([*lines, self._verdict])

    __repr__ = __str__  # made to be read, not to be built again

    def _repr_html_(self) -> str:
        return show_table([*self.cells(), (self._verdict,)], TITLES)

    @property
    def _verdict(self) -> str:
        return "equal" if self.equal else "NOT equal"


def compare_rule(
    torch_attention: Callable[[Any, Any, Any], Any],
    query: Float[Array, "*#batch T H"],
    key: Float[Array, "*#batch S Hk"],
    value: Float[Array, "*#batch S E"],
    **rule: Any,
) -> Comparison:
    """Compare a rule with an attention written in PyTorch: outputs, and gradients to the three operands.

        jax = attend(query, key, value, **rule),        torch = torch_attention(query, key, value)
        output:     jax - torch,        gradients:  d sum(sin(jax)) - d sum(sin(torch))

    Both run with products at highest precision, in the dtype of the operands. Use random operands without ties, and
    more than one size: two rules can agree by chance where T = S or all numbers are positive.

    Args:
        torch_attention: takes three tensors, gives one `[..., T, E]`. A function with other axes, or a head axis, needs
            a wrapper: `lambda q, k, v: f(q[:, None], k[:, None], v[:, None])[:, 0]`.
        query: `[..., T, H]`, float32 or float64 (with `jax_enable_x64`) like the others; tensors are fine.
        key: `[..., S, H]`, or as the score takes it.
        value: `[..., S, E]`.
        rule: as in `attend`: `score`, `mods`, `mask`, `normalize`, positions, `implementation`.

    Returns:
        A `Comparison`: `output`, a `Difference`; `gradients`, one for each of query, key and value; `equal`, whether
        rounding explains them. A distance `max_abs` is explained up to

            32 sqrt(n) eps / 2 (1 + largest expected number + sensitivity)

        where `sqrt(n) eps / 2` (`tolerance / 32`) is the error of the longest sum, of n terms, if roundings are a
        random walk. The sensitivity is the change of the result for a relative change of the operands: a softmax of
        large scores magnifies their rounding errors. Print the comparison to see a table.

    Raises:
        ImportError: if PyTorch is not installed.
        TypeError: if operands are not all float32 or all float64, or `torch_attention` returns no tensor.
        ValueError: if `torch_attention` returns another shape or something without gradients; and as `attend`.

    Example:
        >>> import numpy as np
        >>> from torch.nn.functional import scaled_dot_product_attention
        >>> from jax_attention import interop, masks, scores
        >>> q, k, v = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32)
        >>> sdpa = lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)
        >>> interop.compare_rule(sdpa, q, k, v, mask=masks.causal()).equal
        True
        >>> interop.compare_rule(sdpa, q, k, v, mask=masks.causal(), score=scores.dot()).equal
        False

    Reference:
        Higham (2002), "Accuracy and stability of numerical algorithms", section 2.8: rounding errors as a random walk.
    """
    operands = _check_operands(query, key, value)
    eps = float(jnp.finfo(operands[0].dtype).eps)
    # The step of a difference quotient with the smallest error: truncation grows with it, rounding with its inverse.
    step = eps**0.5
    jax_results, moved = _run_jax([operands, _perturbed(operands, step)], rule)
    expected = _run_torch(torch_attention, operands, jax_results["output"].shape)
    longest_sum = max([1, *(size for x in operands for size in x.shape[-2:])])
    tolerance = ROUNDINGS * longest_sum**0.5 * eps / 2
    scales = {
        name: 1 + _largest(expected[name]) + _sensitivity(x, moved[name], step) for name, x in jax_results.items()
    }
    differences = {
        name: difference(x, expected[name], rounding=tolerance * scales[name]) for name, x in jax_results.items()
    }
    return Comparison(differences.pop("output"), differences, tolerance, scales)


def _sensitivity(x: np.ndarray, moved: np.ndarray, step: float) -> float:
    """Change of a result if every operand changed by its own size, from a change by `step` times its size."""
    with np.errstate(invalid="ignore"):  # inf - inf
        return _largest(moved - x) / step


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x[np.isfinite(x)]).max(initial=0.0))


def _check_operands(*arrays: Any) -> tuple[np.ndarray, ...]:
    operands = tuple(to_numpy(x) for x in arrays)
    dtypes = {str(x.dtype) for x in operands}
    fail_unless(
        dtypes in ({"float32"}, {"float64"}),
        f"query, key, value: expected three arrays of float32 or three of float64, got "
        f"{', '.join(describe_array(x) for x in operands)}. Differences of narrower dtypes are rounding: compare the "
        "rule in float32.",
        TypeError,
    )
    return operands


def _perturbed(operands: tuple[np.ndarray, ...], step: float) -> tuple[np.ndarray, ...]:
    """Every number times `1 + step` or `1 - step`, at random but always the same: comparisons are deterministic."""
    rng = np.random.default_rng(0)
    return tuple(x * (1 + step * rng.choice([-1, 1], size=x.shape)).astype(x.dtype) for x in operands)


def _run_jax(points: list[tuple[np.ndarray, ...]], rule: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """Output and gradients of the rule by name, for each of several triples of operands."""

    @jax.jit
    def run(*operands: jax.Array) -> dict[str, jax.Array]:
        def loss(*operands: jax.Array) -> tuple[jax.Array, jax.Array]:
            output = attend(*operands, **{"precision": "highest", **rule})
            # The sine gives every number of the output a cotangent of its own. With a plain sum all cotangents are 1,
            # and errors of several numbers may cancel.
            return jnp.sum(jnp.sin(output)), output

        gradients, output = jax.grad(loss, (0, 1, 2), has_aux=True)(*operands)
        return dict(zip(RESULTS, (output, *gradients), strict=True))

    with jax.default_matmul_precision("highest"):
        results = [run(*(to_jax(name, x) for name, x in zip(OPERANDS, point, strict=True))) for point in points]
    return [{name: np.asarray(one[name]) for name in RESULTS} for one in results]


def _run_torch(
    torch_attention: Callable, operands: tuple[np.ndarray, ...], shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Output and gradients of the PyTorch function by name; 0 is the gradient to an operand that it does not use."""
    torch = import_torch()
    tensors = [to_tensor(x).requires_grad_() for x in operands]
    with highest_precision(torch), torch.enable_grad():
        output = torch_attention(*tensors)
        fail_unless(
            isinstance(output, torch.Tensor),
            f"torch_attention: expected a function that returns a tensor, got {type(output).__name__}. Take the output "
            "out of what your function returns: lambda q, k, v: f(q, k, v)[0].",
            TypeError,
        )
        fail_unless(
            tuple(output.shape) == shape,
            f"torch_attention: expected an output of shape {shape}, as in JAX, got {tuple(output.shape)}. Move the "
            "axes within the function that you pass.",
        )
        fail_unless(
            output.requires_grad,
            "torch_attention: expected an output with gradients, got one without. Leave out no_grad() and detach().",
        )
        gradients = torch.autograd.grad(output.sin().sum(), tensors, allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(tensors, gradients, strict=True)]
    return {name: to_numpy(x) for name, x in zip(RESULTS, (output, *gradients), strict=True)}
