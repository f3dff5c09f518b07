"""`dot_product_attention` has the signature, outputs and gradients of jax.nn, except for some named differences."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import dot_product_attention
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import FORWARD, GRADIENT

B, T, S, N, K, H = 2, 5, 7, 4, 2, 4
RNG = np.random.default_rng(0)
BIAS = RNG.normal(size=(B, N, T, S)).astype(np.float32)
MASK = (RNG.random((B, N, T, S)) < 0.7) | (np.arange(S) == 0)


def operands(kv_heads: int = N, keys: int = S, dtype=jnp.float32, batch_shape: tuple[int, ...] = (B,)):
    rng = np.random.default_rng(1)
    shapes = (T, N, H), (keys, kv_heads, H), (keys, kv_heads, H)
    return [jnp.asarray(rng.normal(size=(*batch_shape, *shape)).astype(dtype)) for shape in shapes]


CASES = {
    "plain": {},
    "bias": {"bias": BIAS},
    "bias broadcasts": {"bias": BIAS[:1, :1]},
    "mask": {"mask": MASK},
    "mask broadcasts": {"mask": MASK[:, :1, :1]},
    "bias of heads": {"bias": BIAS[0]},
    "mask of heads": {"mask": MASK[0]},
    "scale": {"scale": 0.3},
    "is_causal": {"is_causal": True},
    "query_seq_lengths": {"query_seq_lengths": np.array([T, 3])},
    "key_value_seq_lengths": {"key_value_seq_lengths": np.array([S, 2])},
    "both lengths": {"query_seq_lengths": np.array([2, T]), "key_value_seq_lengths": np.array([1, 4])},
    "window, int": {"local_window_size": 1},  # jax#32300: a window without a mask was once ignored
    "window, pair": {"local_window_size": (2, 0)},
    "xla": {"implementation": "xla"},
    "everything": {
        "bias": BIAS,
        "mask": MASK | (np.arange(S) == np.arange(T)[:, None]),
        "scale": 0.4,
        "is_causal": True,
        "key_value_seq_lengths": np.array([S, T]),
        "query_seq_lengths": np.array([T, T]),
        "local_window_size": (3, 1),
    },
}


def compare(q, k, v, options, forward=FORWARD["float32"], backward=GRADIENT["float32"]):
    """Compare outputs and gradients by q, k, v and a bias. On a CPU both functions have full float32 precision."""
    options = dict(options)
    bias = options.pop("bias", None)
    inputs = (q, k, v) if bias is None else (q, k, v, jnp.asarray(bias))
    cotangent = jnp.asarray(np.random.default_rng(2).normal(size=q.shape), q.dtype)

    def run(attention):
        out, pull = jax.vjp(lambda q, k, v, bias=None: attention(q, k, v, bias, **options), *inputs)
        return out, pull(cotangent)

    (output, gradients), (expected, expected_gradients) = jax.jit(
        lambda: (run(dot_product_attention), run(jax.nn.dot_product_attention))
    )()
    assert output.shape == expected.shape
    assert output.dtype == expected.dtype
    np.testing.assert_allclose(np.float32(output), np.float32(expected), rtol=forward, atol=forward)
    for x, y in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(np.float32(x), np.float32(y), rtol=backward, atol=backward)


def test_signature_is_the_same():
    actual, expected = (inspect.signature(f).parameters for f in (dot_product_attention, jax.nn.dot_product_attention))
    assert [(p.name, p.kind, p.default) for p in actual.values()] == [
        (p.name, p.kind, p.default) for p in expected.values()
    ]


QUICK = ("mask broadcasts", "both lengths", "xla")
"""The tests of grouped queries and of calls without a batch use the other options."""


@pytest.mark.parametrize("name", slow_except(QUICK, CASES))
def test_same_outputs_and_gradients(name):
    compare(*operands(), CASES[name])


@pytest.mark.parametrize("name", [*slow("plain"), "everything"])
def test_grouped_queries(name):
    compare(*operands(K), CASES[name])


@pytest.mark.parametrize(
    "options", [{"is_causal": True, "local_window_size": 2}, *slow({}, {"mask": MASK[:1], "bias": BIAS[:1]})]
)
def test_without_batch(options):
    compare(*operands(batch_shape=()), options)


@pytest.mark.slow
def test_more_queries_than_keys():
    compare(*operands(keys=3), {"is_causal": True, "bias": BIAS[..., :3]})


LAST_RESIDUAL = {"mask": MASK, "local_window_size": 3}


def test_bfloat16():
    """jax.nn rounds the weights to bfloat16, this library only the output; they differ by 2 units in the last place."""
    compare(*operands(dtype=jnp.bfloat16), {"is_causal": True}, forward=2**-6, backward=2**-5)


@pytest.mark.parametrize("options", [*slow({}), {"is_causal": True, "bias": BIAS}, *slow(LAST_RESIDUAL)])
def test_residual(options):
    @jax.jit
    def run(*x):
        functions = dot_product_attention, jax.nn.dot_product_attention
        return [f(*x, return_residual=True, **options) for f in functions]

    (output, logsumexp), (expected, residual) = run(*operands())
    output_alone = jax.jit(lambda *x: dot_product_attention(*x, **options))(*operands())
    tolerance = FORWARD["float32"]
    np.testing.assert_allclose(output, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(logsumexp, residual, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(output, output_alone)  # the residual does not change the output (jax#32484)


def test_differs_empty_rows_are_zero():
    """An empty row and its gradients are 0; in jax.nn it is the mean of all values, including masked ones."""
    mask = MASK.copy()
    mask[:, :, 1] = False
    q, k, v = operands()

    @jax.jit
    def run(q, k, v):
        output, pull = jax.vjp(lambda *x: dot_product_attention(*x, mask=mask), q, k, v)
        residual = dot_product_attention(q, k, v, mask=mask, return_residual=True)[1]
        only_empty = np.zeros(output.shape, np.float32)
        only_empty[:, 1] = 1.0
        return jax.nn.dot_product_attention(q, k, v, mask=mask)[:, 1], output[:, 1], pull(only_empty), residual[:, 1]

    jax_nn_output, output, gradients, residual = run(q, k, v)
    np.testing.assert_allclose(jax_nn_output, np.broadcast_to(np.mean(v, axis=1), jax_nn_output.shape), atol=1e-6)
    assert np.all(np.asarray(output) == 0)
    assert all(np.all(np.asarray(x) == 0) for x in gradients)
    assert np.all(np.isneginf(residual))


def test_differs_float64_is_kept(x64):
    """float64 agrees with NumPy; jax.nn has a float32 softmax for every dtype (jax#34114)."""
    q, k, v = operands(dtype=jnp.float64)
    z = np.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(H)
    w = np.exp(z - z.max(-1, keepdims=True))
    exact = np.einsum("bnts,bsnh->btnh", w / w.sum(-1, keepdims=True), v)
    output, jax_nn_output = jax.jit(lambda *x: (dot_product_attention(*x), jax.nn.dot_product_attention(*x)))(q, k, v)
    np.testing.assert_allclose(output, exact, rtol=FORWARD["float64"], atol=FORWARD["float64"])
    assert np.max(np.abs(jax_nn_output - exact)) > 1e-9


def test_differs_logsumexp_has_a_gradient():
    """The gradient of the logsumexp by the scores equals the weights; jax.nn stops this gradient."""
    q, k, v = operands()

    @jax.jit
    def run(q):
        gradient, jax_nn_gradient = (
            jax.grad(lambda q, f=f: f(q, k, v, return_residual=True)[1].sum())(q)
            for f in (dot_product_attention, jax.nn.dot_product_attention)
        )
        return gradient, jax_nn_gradient, dot_product_attention(q, k, k) / np.sqrt(H)

    gradient, jax_nn_gradient, expected = run(q)
    assert np.all(np.asarray(jax_nn_gradient) == 0)
    np.testing.assert_allclose(gradient, expected, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])


def test_differs_named_implementation_never_falls_back():
    with pytest.raises(ValueError, match="implementation: there is no implementation 'flash'"):
        dot_product_attention(*operands(), implementation="flash")


def test_differs_value_size_is_free():
    q, k, v = operands()
    wide = np.concatenate([v, np.asarray(v) + 1], axis=-1)
    run = jax.jit(lambda *x: (dot_product_attention(q, k, wide)[..., :H], dot_product_attention(q, k, v)))
    np.testing.assert_allclose(*run(q, k, v), atol=1e-6)


@pytest.mark.parametrize("axes", [2, 1])
@pytest.mark.parametrize("name", ["mask", "bias"])
def test_differs_padding_masks_without_axes_are_refused(name, axes):
    """jax#35916: `[B, S]` must not be read as `[T, S]`, which jax.nn does where B = T."""
    array = np.ones((B, S)[-axes:], bool if name == "mask" else np.float32)
    with pytest.raises(ValueError, match=rf"{name}: expected axes \[B, N, T, S\].*{name}\[:, None, None, :\]"):
        dot_product_attention(*operands(), **{name: array})


@pytest.mark.parametrize("which", [0, 1, 2])
def test_operands_of_several_dtypes_are_refused_as_by_jax(which):
    mixed = operands()
    mixed[which] = mixed[which].astype(jnp.bfloat16)
    for call, error in ((dot_product_attention, TypeError), (jax.nn.dot_product_attention, ValueError)):
        with pytest.raises(error, match="dtype"):
            call(*mixed)
