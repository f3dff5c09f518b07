"""`interop.compare_rule`: the same rule in PyTorch is equal, a slightly wrong one is not."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jax_attention import interop, masks, mods, normalizers, scores
from tests.support.tiers import slow_except
from tests.support.torch_parity import inputs

B, T, S, H, E = 2, 4, 5, 3, 6
ROWS, COLUMNS = torch.arange(T)[:, None], torch.arange(S)[None]
WQ, WK, VECTOR, WEIGHT = inputs("float32", (H, 7), (H, 7), (7,), (H, H), seed=3)


def operands(dtype="float32"):
    return inputs(dtype, (B, T, H), (B, S, H), (B, S, E))


def dots(q, k):
    return q @ k.mT / math.sqrt(H)


def softmax(s, allowed):
    return torch.softmax(s.masked_fill(~allowed, -torch.inf), -1)


def as_tensor(x, like):
    return torch.tensor(x).to(like.dtype)


RULES = {
    "plain": (lambda q, k, v: torch.softmax(dots(q, k), -1) @ v, {}),
    "scaled_dot_product_attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), {}),
    "causal": (lambda q, k, v: softmax(dots(q, k), COLUMNS <= ROWS) @ v, {"mask": masks.causal()}),
    "window": (
        lambda q, k, v: softmax(dots(q, k), (COLUMNS <= ROWS) & (COLUMNS > ROWS - 2)) @ v,
        {"mask": masks.sliding_window(2)},
    ),
    "alibi": (
        lambda q, k, v: torch.softmax(dots(q, k) - 0.25 * (ROWS - COLUMNS).abs(), -1) @ v,
        {"mods": (mods.alibi(0.25),)},
    ),
    "soft cap": (
        lambda q, k, v: torch.softmax(0.5 * torch.tanh(dots(q, k) / 0.5), -1) @ v,
        {"mods": (mods.soft_cap(0.5),)},
    ),
    "cosine": (
        lambda q, k, v: torch.softmax(3 * F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT, -1) @ v,
        {"score": scores.cosine(3.0)},
    ),
    "additive": (
        lambda q, k, v: (
            torch.softmax(
                torch.tanh((q @ as_tensor(WQ, q))[:, :, None] + (k @ as_tensor(WK, k))[:, None]) @ as_tensor(VECTOR, q),
                -1,
            )
            @ v
        ),
        {"score": scores.additive(WQ, WK, None, VECTOR)},
    ),
    "general": (
        lambda q, k, v: torch.softmax(torch.einsum("btq,qk,bsk->bts", q, as_tensor(WEIGHT, q), k), -1) @ v,
        {"score": scores.general(WEIGHT)},
    ),
    "sigmoid": (
        lambda q, k, v: torch.sigmoid(dots(q, k) - 1).masked_fill(COLUMNS > ROWS, 0) @ v,
        {"normalize": normalizers.sigmoid(-1.0), "mask": masks.causal()},
    ),
    "relu": (lambda q, k, v: torch.relu(dots(q, k)) / S @ v, {"normalize": normalizers.relu()}),
    "plus one": (
        lambda q, k, v: torch.softmax(F.pad(dots(q, k), (0, 1)), -1)[..., :-1] @ v,
        {"normalize": normalizers.softmax(plus_one=True)},
    ),
    "blockwise": (
        lambda q, k, v: softmax(dots(q, k), COLUMNS <= ROWS) @ v,
        {"mask": masks.causal(), "implementation": "blockwise"},
    ),
}


SLOW = {"cosine", "general", "plus one", "additive", "blockwise"}


@pytest.mark.parametrize("name", slow_except(RULES.keys() - SLOW, RULES))
def test_equal_in_float32(name):
    torch_attention, rule = RULES[name]
    comparison = interop.compare_rule(torch_attention, *operands(), **rule)
    assert comparison.equal, str(comparison)
    assert 1e-6 < comparison.tolerance < 1e-5


@pytest.mark.parametrize("name", slow_except(("cosine",), ("causal", "alibi", "cosine", "sigmoid", "additive")))
def test_equal_in_float64(name, x64):
    torch_attention, rule = RULES[name]
    comparison = interop.compare_rule(torch_attention, *operands("float64"), **rule)
    assert comparison.equal, str(comparison)
    assert comparison.tolerance < 2e-14


@pytest.mark.parametrize("name", slow_except(("plain",), ("plain", "general", "causal")))
def test_large_scores_magnify_rounding_errors_and_the_tolerance(name):
    torch_attention, rule = RULES[name]
    comparison = interop.compare_rule(torch_attention, *(3 * x for x in operands()), **rule)
    assert comparison.equal, str(comparison)
    assert comparison.allowed("key") > 3 * interop.compare_rule(torch_attention, *operands(), **rule).allowed("key")


WRONG = {
    "no scale": ("plain", lambda q, k, v: torch.softmax(q @ k.mT, -1) @ v),
    "mask off by one": ("causal", lambda q, k, v: softmax(dots(q, k), COLUMNS <= ROWS + 1) @ v),
    "window off by one": (
        "window",
        lambda q, k, v: softmax(dots(q, k), (COLUMNS <= ROWS) & (COLUMNS >= ROWS - 2)) @ v,
    ),
    "mask after the softmax": (
        "causal",
        lambda q, k, v: torch.softmax(dots(q, k), -1).masked_fill(COLUMNS > ROWS, 0) @ v,
    ),
    "sign of the slope": ("alibi", lambda q, k, v: torch.softmax(dots(q, k) + 0.25 * (ROWS - COLUMNS).abs(), -1) @ v),
    "cap not multiplied": ("soft cap", lambda q, k, v: torch.softmax(torch.tanh(dots(q, k) / 0.5), -1) @ v),
    "length not counted": ("relu", lambda q, k, v: torch.relu(dots(q, k)) / T @ v),
    "softmax over queries": ("plain", lambda q, k, v: torch.softmax(dots(q, k), -2) @ v),
    "a thousandth too much": ("plain", lambda q, k, v: torch.softmax(1.001 * dots(q, k), -1) @ v),
    "NaN": ("plain", lambda q, k, v: torch.softmax(dots(q, k), -1) @ v + torch.nan),
    "infinite": ("plain", lambda q, k, v: torch.softmax(dots(q, k), -1) @ v + torch.inf),
}


@pytest.mark.parametrize("name", WRONG)
def test_slightly_wrong_is_not_equal(name):
    rule, torch_attention = WRONG[name]
    comparison = interop.compare_rule(torch_attention, *operands(), **RULES[rule][1])
    assert not comparison.equal, str(comparison)
    assert str(comparison).endswith("NOT equal")


def test_equal_outputs_with_other_gradients_are_not_equal():
    """A detached softmax gives the same numbers, only the gradients to query and key differ."""

    def detached(q, k, v):
        return torch.softmax(dots(q, k), -1).detach() @ v

    comparison = interop.compare_rule(detached, *operands())
    assert not comparison.equal
    wrong = {name for name, row in comparison.rows.items() if not row.max_abs <= comparison.allowed(name)}
    assert wrong == {"query", "key"}


def test_the_table_names_every_row():
    lines = str(interop.compare_rule(RULES["plain"][0], *operands())).split("\n")
    assert lines[0].split() == ["max_abs", "allowed", "max_rel", "ulps", "cosine"]
    assert [line[:20].strip() for line in lines[1:]] == [
        "output",
        "gradient of query",
        "gradient of key",
        "gradient of value",
        "equal",
    ]


def test_operands_may_be_tensors_or_jax_arrays_and_stay_as_they_are():
    arrays = operands()
    mixed = (torch.tensor(arrays[0]), jnp.asarray(arrays[1]), arrays[2])

    def in_place(q, k, v):
        return torch.softmax(dots(q * 1, k).mul_(1), -1) @ v

    assert interop.compare_rule(in_place, *mixed).equal
    assert np.array_equal(mixed[0], arrays[0])
    assert not mixed[0].requires_grad


def test_precision_of_torch_is_set_back():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        settings = []

        def failing(q, k, v):
            settings.append(torch.get_float32_matmul_precision())
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            interop.compare_rule(failing, *operands())
        assert (settings, torch.get_float32_matmul_precision()) == (["highest"], "high")
    finally:
        torch.set_float32_matmul_precision(before)


MISTAKES = {
    "dtypes": (
        lambda: interop.compare_rule(F.scaled_dot_product_attention, *(x.astype(np.float16) for x in operands())),
        r"query, key, value: expected three arrays of float32 .*float16\[2,4,3\].*in float32",
    ),
    "float64 without x64": (
        lambda: interop.compare_rule(F.scaled_dot_product_attention, *operands("float64")),
        r"query: expected at most 32 bits.*float64\[2,4,3\].*jax_enable_x64",
    ),
    "a tuple": (
        lambda: interop.compare_rule(lambda q, k, v: (v, k), *operands()),
        r"torch_attention: expected a function that returns a tensor, got tuple. Take",
    ),
    "a shape": (
        lambda: interop.compare_rule(lambda q, k, v: v, *operands()),
        r"torch_attention: expected an output of shape \(2, 4, 6\), as in JAX, got \(2, 5, 6\). Move",
    ),
    "no gradients": (
        lambda: interop.compare_rule(lambda q, k, v: torch.zeros(B, T, E), *operands()),
        r"torch_attention: expected an output with gradients, got one without. Leave out",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_errors_explain_the_mistake(name):
    call, message = MISTAKES[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_an_equal_comparison_shows_no_infinite_distance_and_no_cosine_of_rounding():
    """Keys that are all the same get gradients of 0, to the last digits of terms that cancel, on either side."""
    q, k, v = operands()
    k, v = np.repeat(k[:, :1], S, axis=1), np.repeat(v[:, :1], S, axis=1)
    comparison = interop.compare_rule(RULES["plain"][0], q, k, v)
    assert comparison.equal
    for name in ("query", "key"):
        row = comparison.gradients[name]
        assert 0 < row.max_abs < comparison.allowed(name), "the case has rounding in the place of zeros"
        assert row[1:] == (0, 0, 1)
    assert "inf" not in str(comparison)
