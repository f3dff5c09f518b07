"""Report which implementation would run, and why, without computing anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Unpack

import jax.numpy as jnp

from jax_attention.attention.evaluate import IMPLEMENTATIONS, choose, preferred
from jax_attention.attention.prepare import Options, prepare, prepare_heads
from jax_attention.core.checks import describe_array
from jax_attention.core.html import show_table
from jax_attention.core.numerics import compute_dtype
from jax_attention.core.sizes import size_text
from jax_attention.implementations.call import AttentionCall

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Explanation(NamedTuple):
    """`chosen` implementation, the reason `why_not` each other one, the `rule` and the `shapes`; print it."""

    chosen: str
    why_not: dict[str, str]
    rule: dict[str, str]
    shapes: dict[str, str]

    def __str__(self) -> str:
        lines = [f"implementation: {self.chosen}"]
        lines += [f"  not {name}: {reason}" for name, reason in self.why_not.items()]
        lines += [f"{part + ':':<11}{text}" for part, text in {**self.rule, **self.shapes}.items()]
        return "\n".join(lines)

    __repr__ = __str__  # made to be read, not to be built again

    def _repr_html_(self) -> str:
        rows = [("implementation", self.chosen)]
        rows += [(f"not {name}", reason) for name, reason in self.why_not.items()]
        return show_table(rows + list({**self.rule, **self.shapes}.items()))


def explain(
    query: Float[Array, "... H"],
    key: Float[Array, "... Hk"],
    value: Float[Array, "... E"],
    *,
    heads: bool = False,
    **options: Unpack[Options],
) -> Explanation:
    """Report which implementation `attend` (or `attend_heads`) would use, and why not the others.

        explain(q, k, v, ...).chosen  =  what attend(q, k, v, ...) runs

    Args:
        query: as in `attend`; arrays or anything with shape and dtype that `jnp.asarray` takes.
        key: as in `attend`.
        value: as in `attend`.
        heads: True if the operands have the layout of `attend_heads`.
        options: as in `attend`.

    Returns:
        An `Explanation`; `print` it.

    Raises:
        TypeError, ValueError: as `attend` would.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import explain, masks
        >>> x = jnp.ones((3, 4))
        >>> print(explain(x, x, x, mask=masks.causal() & masks.sliding_window(2)))
        implementation: reference
          not linear_attention: score: under softmax() linear_attention needs concat, got scaled_dot()
          not blockwise: 1 x 3 x 3 scores are few, and computed fastest all at once
          not cudnn: the cuDNN kernel needs an NVIDIA GPU of compute capability 8.0, got cpu; 'blockwise' runs there
        score:     scaled_dot()
        mods:      none
        mask:      (causal() & sliding_window(left=2))
        normalize: softmax()
        dropout:   none
        query:     float32[3,4]
        key:       float32[3,4]
        value:     float32[3,4]
        scores:    float32[3,3], 36 bytes

    Reference:
        https://github.com/jax-ml/jax/issues/28974: a kernel that was chosen, or not, silently.
    """
    call = prepare_heads(query, key, value, **options)[0] if heads else prepare(query, key, value, **options)
    chosen = choose(call)
    reason = preferred(call)[1] if call.implementation is None else f"{chosen.name} was requested"
    others = [implementation for implementation in IMPLEMENTATIONS if implementation.name != chosen.name]
    why_not = {other.name: other.why_not(call) or other.only_by_name or reason for other in others}
    operands = {"query": query, "key": key, "value": value}
    shapes = {name: describe_array(jnp.asarray(x)) for name, x in operands.items()}
    return Explanation(chosen.name, why_not, _rule(call), {**shapes, "scores": _score_size(call)})


def _rule(call: AttentionCall) -> dict[str, str]:
    return {
        "score": repr(call.score),
        "mods": ", ".join(map(repr, call.mods)) or "none",
        "mask": "none" if call.mask is None else repr(call.mask),
        "normalize": repr(call.normalize),
        "dropout": "none" if call.dropout is None else f"rate {call.dropout.rate}",
    }


def _score_size(call: AttentionCall) -> str:
    dtype = compute_dtype(call.query, call.key, call.value)
    shape = call.score_shape
    return f"{dtype}[{','.join(map(str, shape))}], {size_text(dtype.itemsize * math.prod(shape))} bytes"
