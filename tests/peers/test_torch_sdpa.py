"""`attend` against `torch.nn.functional.scaled_dot_product_attention`: output and gradients of q, k, v and float mask.

The masks go through `masks.from_torch_sdpa`. Both libraries run at their highest precision, with random cotangents.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from jax_attention import attend, attend_heads, masks, scores
from tests.support.tiers import slow_except
from tests.support.tolerances import FORWARD, PARITY

TOLERANCE = {"float32": PARITY, "float64": FORWARD["float64"]}


class Case(NamedTuple):
    """Sizes of one call, the kind of its `attn_mask`, and the other keywords of torch."""

    T: int = 5
    S: int = 5
    N: int = 2
    K: int = 2
    H: int = 4
    E: int = 4
    mask: str | None = None
    causal: bool = False
    scale: float | None = None


CASES = {
    "plain": Case(),
    "cross, E != H": Case(T=3, S=7, E=6),
    "one query": Case(T=1, S=7),
    "bool mask": Case(S=7, mask="bool"),
    "bool mask per row only": Case(S=7, mask="bool [T, S]"),
    "bool mask with empty rows": Case(S=7, mask="bool, empty rows"),  # pytorch#41508
    "float mask": Case(S=7, mask="float"),
    "float mask with -inf": Case(S=7, mask="float, -inf"),
    "float mask with empty rows": Case(S=7, mask="float, empty rows"),  # pytorch#41508
    "causal, T = S": Case(causal=True),
    "causal, T < S": Case(T=3, S=8, causal=True),  # pytorch#108108: torch aligns at the start
    "causal, T > S": Case(T=8, S=3, causal=True),
    "scale": Case(scale=0.3),
    "grouped queries": Case(N=6, K=2),
    "grouped queries, float mask": Case(N=6, K=2, S=7, mask="float, -inf"),
    "grouped queries, causal, E != H": Case(N=4, K=1, T=3, S=8, E=3, causal=True, scale=0.7),
}


def arrays(case: Case, dtype: str):
    """Query, key and value `[B, heads, length, size]`, the cotangent, and the mask, as NumPy arrays."""
    rng = np.random.default_rng(0)
    B = 2
    shapes = [(B, case.N, case.T, case.H), (B, case.K, case.S, case.H), (B, case.K, case.S, case.E)]
    q, k, v, cotangent = (rng.normal(size=shape).astype(dtype) for shape in (*shapes, (B, case.N, case.T, case.E)))
    if case.mask is None:
        return q, k, v, cotangent, None
    shape = (case.T, case.S) if "[T, S]" in case.mask else (B, case.N, case.T, case.S)
    allowed = rng.random(shape) < 0.7
    allowed[..., 0] = True
    if "empty" in case.mask:
        allowed[..., 1, :] = False
    if case.mask.startswith("bool"):
        return q, k, v, cotangent, allowed
    forbidden = ~allowed if "inf" in case.mask or "empty" in case.mask else np.zeros_like(allowed)
    return q, k, v, cotangent, np.where(forbidden, -np.inf, rng.normal(size=shape)).astype(dtype)


def torch_result(case: Case, q, k, v, cotangent, mask):
    """Output of torch, and gradients by all floating-point arrays."""
    tensors = [torch.tensor(x, requires_grad=x.dtype != bool) for x in (q, k, v, *([] if mask is None else [mask]))]
    out = scaled_dot_product_attention(
        *tensors, is_causal=case.causal, scale=case.scale, enable_gqa=case.N != case.K
    )  # the fourth positional argument is attn_mask
    floating = [x for x in tensors if x.requires_grad]
    return out.detach().numpy(), [g.numpy() for g in torch.autograd.grad(out, floating, torch.tensor(cotangent))]


def attention_output(case: Case, q, k, v, mask):
    """The same call of jax_attention: `attend_heads` for grouped queries, `attend` otherwise."""
    converted = {"mask": masks.causal()} if case.causal else {}
    if mask is not None:
        converted = masks.from_torch_sdpa(mask)._asdict()
    options = {"score": scores.scaled_dot(case.scale), "precision": "highest", **converted}
    if case.N == case.K:
        return attend(q, k, v, **options)
    heads_last = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    return jnp.swapaxes(attend_heads(*heads_last, **options), 1, 2)


def jax_result(case: Case, q, k, v, cotangent, mask):
    floating = (q, k, v) if mask is None or mask.dtype == bool else (q, k, v, mask)

    @jax.jit
    def run(*inputs):
        out, pull = jax.vjp(lambda q, k, v, m=mask: attention_output(case, q, k, v, m), *inputs)
        return out, pull(cotangent)

    return run(*map(jnp.asarray, floating))


def check(name: str, dtype: str):
    inputs = arrays(CASES[name], dtype)
    torch_output, torch_gradients = torch_result(CASES[name], *inputs)
    jax_output, jax_gradients = jax_result(CASES[name], *inputs)
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    assert jax_output.dtype == dtype
    np.testing.assert_allclose(jax_output, torch_output, **close)
    for x, y in zip(jax_gradients, torch_gradients, strict=True):
        assert x.dtype == dtype
        np.testing.assert_allclose(x, y, **close)
    if "empty" in name:
        assert np.all(np.asarray(jax_output)[:, :, 1] == 0)
        assert np.all(np.asarray(jax_gradients[0])[:, :, 1] == 0)


SLOW = {"plain", "one query", "bool mask", "float mask", "causal, T = S", "grouped queries"}
SLOW |= {"float mask with -inf", "cross, E != H", "causal, T > S"}
"""Cases that other cases cover."""


@pytest.mark.parametrize("name", slow_except(CASES.keys() - SLOW, CASES))
def test_float32(name):
    check(name, "float32")


@pytest.mark.parametrize("name", slow_except(("grouped queries, causal, E != H",), CASES))
def test_float64(name, x64):
    check(name, "float64")


def test_end_aligned_causality_is_an_offset():
    """Torch needs a mask for it, because its `is_causal` is aligned at the start (pytorch#108108)."""
    case = Case(T=3, S=8)
    q, k, v, *_ = arrays(case, "float32")
    band = torch.ones(case.T, case.S, dtype=torch.bool).tril(diagonal=case.S - case.T)
    torch_output = scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), attn_mask=band).numpy()
    mask = masks.causal(offset=case.S - case.T)
    jax_output = jax.jit(lambda *x: attend(*x, mask=mask, precision="highest"))(q, k, v)
    np.testing.assert_allclose(jax_output, torch_output, rtol=PARITY, atol=PARITY)


def test_integer_mask_is_refused():
    with pytest.raises(TypeError, match=r"attn_mask: expected bool or float, got int.*attn_mask != 0"):
        masks.from_torch_sdpa(np.ones((3, 3), np.int32))
