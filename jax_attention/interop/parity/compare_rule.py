"""Is an attention written in PyTorch the rule that you think it is? Both run on the same numbers, forward and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.attention.attend import attend
from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.interop.parity.difference import Difference, difference
from jax_attention.interop.torch.tensors import highest_precision, import_torch, to_jax, to_numpy, to_tensor

if TYPE_CHECKING:
    from jaxtyping import Array, Float

OPERANDS = ("query", "key", "value")
RESULTS = ("output", *OPERANDS)
"""The last three are the gradients to the operands."""
ROUNDINGS = 32
"""So many errors of one long sum: there are a dozen, in scores, normalizer, output and their derivatives, on two sides.
Of what this allows, correct rules used at most 0.4, over 12 draws each and with scores up to about 50."""


class Comparison(NamedTuple):
    """What `compare_rule` found; `str()` of it is a table."""

    output: Difference
    gradients: dict[str, Difference]
    tolerance: float
    scales: dict[str, float]
    """What the tolerance is relative to, for "output" and each operand: 1 + the largest expected number + what the
    result would change by if every operand changed by its own size."""

    @property
    def rows(self) -> dict[str, Difference]:
        """All differences, by "output" and the operand that a gradient is of."""
        return {"output": self.output, **self.gradients}

    @property
    def equal(self) -> bool:
        """Whether every distance is allowed."""
        return all(row.max_abs <= self.allowed(name) for name, row in self.rows.items())

    def allowed(self, name: str) -> float:
        """The largest distance of equal results, for "output" or an operand."""
        return self.tolerance * self.scales[name]

    def __str__(self) -> str:
        header = f"{'':<20} {'max_abs':>9} {'allowed':>9} {'max_rel':>9} {'ulps':>9} {'cosine':>13}"
        lines = [
            f"{name if name == 'output' else f'gradient of {name}':<20} {row.max_abs:9.1e} {self.allowed(name):9.1e} "
            f"{row.max_rel:9.1e} {row.ulps:9.3g} {row.cosine:13.9f}"
            for name, row in self.rows.items()
        ]
        return "\n".join([header, *lines, "equal" if self.equal else "NOT equal"])


def compare_rule(
    theirs: Callable[[Any, Any, Any], Any],
    query: Float[Array, "*#lead T H"],
    key: Float[Array, "*#lead S Hk"],
    value: Float[Array, "*#lead S E"],
    **rule: Any,
) -> Comparison:
    """Compare a rule with an attention written in PyTorch: outputs, and gradients to the three operands.

        ours   = attend(query, key, value, **rule),        theirs = theirs(query, key, value)
        output:     ours - theirs,        gradients:  d sum(sin(ours)) - d sum(sin(theirs))

    Both run with products at highest precision, in the dtype of the operands. Use operands of random numbers, without
    ties, and more than one size: two rules can agree by chance where T = S or all is positive.

    Args:
        theirs: takes three tensors, gives one `[..., T, E]`. If it wants another order of axes, or a head axis, it
            changes them itself: `lambda q, k, v: f(q[:, None], k[:, None], v[:, None])[:, 0]`.
        query: `[..., T, H]`, float32 or float64 (with `jax_enable_x64`), as the others; tensors are fine.
        key: `[..., S, H]`, or as the score takes it.
        value: `[..., S, E]`.
        rule: as in `attend`: `score`, `mods`, `mask`, `normalize`, positions, `implementation`.

    Returns:
        A value with `output`, a `Difference`; `gradients`, one for each of query, key and value; `tolerance`, 32 times
        the error of a random walk of rounding over the longest sum, `32 sqrt(n) eps / 2`; `equal`, whether every
        `max_abs` is within `tolerance * (1 + largest expected number + sensitivity)`, the last being the change of the
        result for a relative change of the operands: large scores make a softmax repeat their rounding errors enlarged.
        Print it to see a table.

    Raises:
        ImportError: if PyTorch is not installed.
        TypeError: if operands are not all float32 or all float64, or `theirs` returns no tensor.
        ValueError: if `theirs` returns another shape or something without gradients; and as `attend`.

    Example:
        >>> import numpy as np
        >>> from torch.nn.functional import scaled_dot_product_attention
        >>> from jax_attention import interop, masks, scores
        >>> q, k, v = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32)
        >>> theirs = lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)
        >>> interop.compare_rule(theirs, q, k, v, mask=masks.causal()).equal
        True
        >>> interop.compare_rule(theirs, q, k, v, mask=masks.causal(), score=scores.dot()).equal
        False

    Reference:
        Higham (2002), "Accuracy and stability of numerical algorithms", section 2.8: rounding errors as a random walk.
    """
    operands = _operands(query, key, value)
    eps = float(jnp.finfo(operands[0].dtype).eps)
    step = eps**0.5
    ours, nudged = _ours([operands, _nudged(operands, step)], rule)
    expected = _theirs(theirs, operands, ours["output"].shape)
    found = {name: difference(x, expected[name]) for name, x in ours.items()}
    longest = max([1, *(size for x in operands for size in x.shape[-2:])])
    return Comparison(
        output=found.pop("output"),
        gradients=found,
        tolerance=ROUNDINGS * longest**0.5 * eps / 2,
        scales={name: 1 + _largest(expected[name]) + _sensitivity(x, nudged[name], step) for name, x in ours.items()},
    )


def _sensitivity(x: np.ndarray, nudged: np.ndarray, step: float) -> float:
    with np.errstate(invalid="ignore"):  # inf - inf
        return _largest(nudged - x) / step


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x[np.isfinite(x)]).max(initial=0.0))


def _operands(*given: Any) -> tuple[np.ndarray, ...]:
    operands = tuple(to_numpy(x) for x in given)
    dtypes = {str(x.dtype) for x in operands}
    fail_unless(
        dtypes in ({"float32"}, {"float64"}),
        f"query, key, value: expected three arrays of float32 or three of float64, got "
        f"{', '.join(describe_array(x) for x in operands)}. Differences of narrower dtypes are rounding: compare the "
        "rule in float32.",
        TypeError,
    )
    return operands


def _nudged(operands: tuple[np.ndarray, ...], step: float) -> tuple[np.ndarray, ...]:
    """Every number larger or smaller by a part of it, always the same way."""
    rng = np.random.default_rng(0)
    return tuple(x * (1 + step * rng.choice([-1, 1], size=x.shape)).astype(x.dtype) for x in operands)


def _ours(points: list[tuple[np.ndarray, ...]], rule: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """Output and gradients by name, at each of several points."""

    @jax.jit
    def run(*operands: jax.Array) -> dict[str, jax.Array]:
        def loss(*operands: jax.Array) -> tuple[jax.Array, jax.Array]:
            output = attend(*operands, **{"precision": "highest", **rule})
            return jnp.sum(jnp.sin(output)), output

        gradients, output = jax.grad(loss, (0, 1, 2), has_aux=True)(*operands)
        return dict(zip(RESULTS, (output, *gradients), strict=True))

    with jax.default_matmul_precision("highest"):
        found = [run(*(to_jax(name, x) for name, x in zip(OPERANDS, point, strict=True))) for point in points]
    return [{name: np.asarray(results[name]) for name in RESULTS} for results in found]


def _theirs(theirs: Callable, operands: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Their output and gradients by name, that of an operand which is not used being 0."""
    torch = import_torch()
    tensors = [to_tensor(x).requires_grad_() for x in operands]
    with highest_precision(torch), torch.enable_grad():
        output = theirs(*tensors)
        fail_unless(
            isinstance(output, torch.Tensor),
            f"theirs: expected a function that returns a tensor, got {type(output).__name__}. Take the output out of "
            "what your function returns: lambda q, k, v: f(q, k, v)[0].",
            TypeError,
        )
        fail_unless(
            tuple(output.shape) == shape,
            f"theirs: expected an output of shape {shape}, as ours, got {tuple(output.shape)}. Move the axes within "
            "the function that you pass.",
        )
        fail_unless(
            output.requires_grad,
            "theirs: expected an output with gradients, got one without. Leave out no_grad() and detach().",
        )
        gradients = torch.autograd.grad(output.sin().sum(), tensors, allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(tensors, gradients, strict=True)]
    return {name: to_numpy(x) for name, x in zip(RESULTS, (output, *gradients), strict=True)}
