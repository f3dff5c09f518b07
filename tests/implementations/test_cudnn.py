"""The adapter to the cuDNN kernel.

Its errors, and layout, scale, lengths, gradients and `vmap` with another kernel in the place of cuDNN. On a GPU,
`JAX_PLATFORMS=cuda pytest -m gpu` tests the kernel itself.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import (
    Cudnn,
    Dense,
    Dropout,
    attend,
    attend_heads,
    attend_with_stats,
    attention_weights,
    dot_product_attention,
    explain,
    masks,
    mods,
    normalizers,
    scores,
)
from jax_attention.attention.prepare import prepare, prepare_heads
from jax_attention.implementations.call import AttentionCall
from jax_attention.implementations.cudnn import eligible, fused
from tests.support.arrays import check_close, difference, normal
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import GRADIENT

B, T, S, N, K, H = 2, 7, 5, 4, 2, 8


BY_XLA = functools.partial(fused.kernel, implementation="xla")
"""The function that the kernel computes, by jax.nn without the kernel."""


@pytest.fixture
def fake_gpu(monkeypatch):
    """Make the adapter believe that there is a GPU, and replace the kernel."""
    monkeypatch.setattr(eligible, "compute_capability", lambda: (9, 0))
    monkeypatch.setattr(fused, "kernel", BY_XLA)


# --- Errors ----------------------------------------------------------------------------------------------------------


def operands(rows: int = T, columns: int = T, dtype: str = "bfloat16", size: int = H) -> tuple[jax.Array, ...]:
    return tuple(jnp.ones((B, n, size), dtype) for n in (rows, columns, columns))


CAUSAL = {"mask": masks.causal()}
REFUSED = {
    "float32": (operands(dtype="float32"), {}, ["float16 or all in bfloat16", "float32, float32, float32", "cast"]),
    "mixed dtypes": ((*operands()[:2], jnp.ones((B, T, H))), {}, ["bfloat16, bfloat16, float32"]),
    "head size": (operands(size=12), {}, ["multiple of 8 up to 256", "12 and 12", "blockwise"]),
    "large heads": (operands(size=264), {}, ["up to 256", "264"]),
    "value size": ((*operands()[:2], operands(size=16)[2]), {}, ["one head size", "8 and 16"]),
    "score": (operands(), {"score": scores.cosine()}, ["score:", "dot and scaled_dot", "cosine(scale=1.0)"]),
    "learned scale": (operands(), {"score": scores.scaled_dot(jnp.ones(B))}, ["positive Python number", "the query"]),
    "negative scale": (operands(), {"score": scores.scaled_dot(-1)}, ["score:", "positive"]),
    "mods": (operands(), {"mods": (mods.soft_cap(3.0),)}, ["mods:", "soft_cap"]),
    "bias": (operands(), {"mods": (mods.bias(jnp.ones((T, T))),)}, ["mods:", "bias"]),
    "sinks": (operands(), {"normalize": normalizers.softmax(1.0)}, ["normalize:", "without sinks"]),
    "normalizer": (operands(), {"normalize": normalizers.sigmoid()}, ["normalize:", "sigmoid"]),
    "dropout": (operands(), {"dropout": Dropout(jax.random.key(0), 0.1)}, ["dropout:"]),
    "precision": (operands(), {"precision": "highest"}, ["precision:", "'highest'", "leave precision out"]),
    "segments": (operands(), {"mask": masks.segments(jnp.zeros(T, int))}, ["mask:", "segments", "blockwise"]),
    "or": (operands(), {"mask": masks.causal() | masks.prefix(2)}, ["mask:", "joined by &", "prefix"]),
    "plain": (operands(), {"mask": lambda q, k: q >= k}, ["mask:", "<lambda>"]),
    "offset": (operands(), {"mask": masks.causal(1)}, ["mask:", "at position 0", "causal(offset=1)"]),
    "rectangle": (operands(T, S), CAUSAL, ["mask:", "7 queries and 5 keys"]),
    "ahead": (operands(), {"mask": masks.sliding_window(2, 1)}, ["mask:", "looks ahead"]),
    "window of lengths": (
        operands(),
        {"mask": masks.sliding_window(3) & masks.lengths(jnp.array([1, 2]))},
        ["key_lengths", "window without keys"],
    ),
    "positions": (operands(), {**CAUSAL, "query_positions": jnp.arange(T)}, ["query_positions", "counts rows from 0"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, fake_gpu):
    arrays, rule, fragments = REFUSED[name]
    with pytest.raises(ValueError) as caught:
        attend(*arrays, **rule, implementation="cudnn")
    assert str(caught.value).startswith("implementation: ")
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []
    assert explain(*arrays, **rule).why_not["cudnn"] in str(caught.value)


def test_refused_without_a_gpu(monkeypatch):
    for capability, device in (((), "cpu"), ((7, 5), "cpu")):
        monkeypatch.setattr(eligible, "compute_capability", lambda capability=capability: capability)
        with pytest.raises(ValueError, match=f"needs an NVIDIA GPU of compute capability 8.0, got {device}"):
            attend(*operands(), implementation="cudnn")
    monkeypatch.setattr(eligible, "compute_capability", lambda: (8, 6))
    with pytest.raises(ValueError, match="up to 128, got 136"):
        attend(*operands(size=136), implementation="cudnn")


def test_no_weights_and_no_statistics(fake_gpu):
    with pytest.raises(ValueError, match="weights and statistics: the cuDNN kernel returns neither; 'reference' and"):
        attention_weights(*operands(), implementation="cudnn")
    with pytest.raises(ValueError, match="weights and statistics: the cuDNN kernel returns neither; 'reference' and"):
        attend_with_stats(*operands(), implementation="cudnn")


def test_cudnn_is_chosen_only_by_name(fake_gpu):
    report = explain(*operands())
    assert report.chosen == "reference"
    assert "by name only" in report.why_not["cudnn"]
    assert "second derivative" in report.why_not["cudnn"]
    assert explain(*operands(2000, 2000)).chosen == "blockwise"
    assert explain(*operands(), implementation="cudnn").chosen == "cudnn"


# --- Results ---------------------------------------------------------------------------------------------------------

LENGTHS = masks.lengths(jnp.array([[0], [4]]), jnp.array([[3], [6]]))
MASKS = {
    "none": None,
    "causal": masks.causal(),
    "window": masks.sliding_window(3),
    "wide window": masks.sliding_window(20),
    "causal & any window": masks.sliding_window(2, None) & masks.causal(),
    "lengths": LENGTHS,
    "key lengths": masks.lengths(jnp.array([[9], [-1]])),
    "one length": masks.lengths(3, 2),
    "causal & lengths": masks.causal() & LENGTHS,
    "window & query lengths": masks.sliding_window(3) & masks.lengths(None, jnp.array([[0], [5]])),
}


def call_with_heads(*arrays: jax.Array, **rule) -> AttentionCall:
    return prepare_heads(*arrays, **rule)[0]


def output_and_gradients(implementation, make, arrays: tuple, rule: dict) -> list[jax.Array]:
    """Output and gradients of an implementation."""

    def output(*arrays: jax.Array) -> jax.Array:
        return implementation.attend(make(*arrays, **rule))

    gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(output(*x))), (0, 1, 2))
    return jax.tree.leaves(jax.jit(lambda *x: (output(*x), gradient(*x)))(*arrays))


def check(make, arrays: tuple, rule: dict, tolerance: float = GRADIENT["float32"]) -> None:
    actual, expected = (
        output_and_gradients(implementation, make, arrays, rule) for implementation in (Cudnn(), Dense())
    )
    for x, y in zip(actual, expected, strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
    check_close(actual, expected, tolerance)


@pytest.mark.parametrize("mask", slow_except(("causal & lengths", "window"), MASKS))
@pytest.mark.parametrize("kv_heads", [*slow(1), K, *slow(N)])
def test_masks_and_heads(mask, kv_heads, fake_gpu):
    arrays = normal(0, B, T, N, H), normal(1, B, T, kv_heads, H), normal(2, B, T, kv_heads, H)
    check(call_with_heads, arrays, {"mask": MASKS[mask]})


BATCH_SHAPES = {
    "none": [(), (), ()],
    "one": [(3,), (3,), (3,)],
    "three": [(2, 1, 3), (2, 1, 3), (2, 1, 3)],
    "shared keys": [(2, 3), (), ()],
    "shared inside": [(2, 3, 2), (2, 1, 1), (2, 1, 1)],
    "shared outside": [(2, 3), (1, 3), (3,)],
    "shared queries": [(3,), (2, 3), (1, 1)],
    "shared in turn": [(2, 1, 3), (1, 2, 1), (2, 1, 1)],
}


@pytest.mark.parametrize("name", slow_except(("shared in turn",), BATCH_SHAPES))
def test_batch_dimensions(name, fake_gpu):
    arrays = tuple(
        normal(n, *batch_shape, rows, H)
        for n, (batch_shape, rows) in enumerate(zip(BATCH_SHAPES[name], (T, S, S), strict=True))
    )
    check(prepare, arrays, {"score": scores.dot(), "mask": masks.lengths(4)})


@pytest.mark.parametrize("shape", [(2, 3), *slow((2, 1), (1, 3))], ids=str)
def test_lengths_of_any_batch_dimension(shape, fake_gpu):
    arrays = tuple(normal(n, 2, 3, rows, H) for n, rows in enumerate((T, S, S)))
    check(prepare, arrays, {"mask": masks.lengths(jnp.arange(6).reshape(2, 3)[: shape[0], : shape[1]])})


@pytest.mark.parametrize("shape", [(1, 1), *slow((1, S), (T, 1), (13, 13)), (0, S), (T, 0)], ids=str)
def test_any_shape(shape, fake_gpu):
    arrays = tuple(normal(n, B, rows, N, H) for n, rows in enumerate((shape[0], shape[1], shape[1])))
    check(call_with_heads, arrays, {"score": scores.scaled_dot(0.7)})


def test_public_functions_in_bfloat16(fake_gpu):
    arrays = tuple(normal(n, B, T, heads, H, dtype="bfloat16") for n, heads in enumerate((N, K, K)))
    call = lambda *x: [attend_heads(*x, mask=masks.causal(), implementation=n) for n in ("cudnn", "reference")]  # noqa: E731
    actual, expected = jax.jit(call)(*arrays)
    assert actual.dtype == jnp.bfloat16
    assert difference(actual, expected) < 0.03
    jax_nn_output = jax.jit(lambda *x: dot_product_attention(*x, is_causal=True, implementation="cudnn"))(*arrays)
    assert np.array_equal(actual, jax_nn_output)


MAPPED = [x for x in itertools.product([0, None], repeat=3) if any(n == 0 for n in x)]


@pytest.mark.parametrize("mask", [*slow("causal"), "causal & lengths"])
@pytest.mark.parametrize("mapped", slow_except(((0, None, None),), MAPPED))
def test_maps_of_any_operands(mapped, mask, fake_gpu):
    arrays = tuple(
        normal(n, *((3,) if axis == 0 else ()), B, T, heads, H)
        for n, (axis, heads) in enumerate(zip(mapped, (N, K, K), strict=True))
    )

    def loss(implementation, *arrays: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(implementation.attend(call_with_heads(*arrays, mask=MASKS[mask]))))

    def maps(implementation, *arrays: jax.Array) -> tuple:
        run = functools.partial(loss, implementation)
        twice = jax.vmap(jax.vmap(run, (None, 0, None)), (0, None, 0))  # each operand is mapped by one of two vmaps
        pair = lambda x: jnp.stack([x, -x])  # noqa: E731
        return (
            jax.vmap(run, mapped)(*arrays),
            jax.vmap(jax.grad(run, (0, 1, 2)), mapped)(*arrays),
            jax.grad(lambda *x: jnp.sum(jax.vmap(run, mapped)(*x) ** 2), (0, 1, 2))(*arrays),
            jax.vmap(lambda *x: jax.grad(lambda *x: jnp.sum(twice(*map(pair, x))), (0, 1, 2))(*x), mapped)(*arrays),
        )

    actual, expected = (
        jax.tree.leaves(jax.jit(functools.partial(maps, implementation))(*arrays))
        for implementation in (Cudnn(), Dense())
    )
    check_close(actual, expected, 2 * GRADIENT["float32"])


def test_maps_of_lengths_and_scans(fake_gpu):
    q, k, v = (normal(n, 3, B, T, H) for n in range(3))
    lengths = jnp.array([[1, 7], [0, 2], [5, 4]])

    def loss(implementation, q, lengths) -> jax.Array:
        def step(carry, kv):
            rule = {"mask": masks.causal() & masks.lengths(lengths)}
            return jax.checkpoint(lambda q: implementation.attend(prepare(q, *kv, **rule)))(carry), None

        return jnp.sum(jnp.sin(jax.lax.scan(step, q, (k, v))[0]))

    def maps(*x):
        return [
            jax.vmap(jax.grad(functools.partial(loss, implementation)))(*x) for implementation in (Cudnn(), Dense())
        ]

    actual, expected = jax.jit(maps)(q, lengths)
    assert difference(actual, expected) <= GRADIENT["float32"]


def test_nan_in_padding_changes_nothing(fake_gpu):
    q, k, v = (np.array(normal(n, B, T, H)) for n in range(3))
    q[0, 3:] = np.nan
    k[0, 2:], k[1] = np.inf, np.nan
    v[0, 2:], v[1] = np.nan, np.inf
    check(prepare, (q, k, v), {"mask": masks.lengths(jnp.array([2, 0]), jnp.array([3, 7]))})


def test_one_derivative_only(fake_gpu):
    def run(q: jax.Array) -> jax.Array:
        return jnp.sum(attend(q, q, q, implementation="cudnn") ** 2)

    q = normal(0, T, H, dtype="bfloat16")
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(run, (q,), (q,))
    for second in (
        lambda: jax.grad(lambda q: jnp.sum(jax.grad(run)(q)))(q),
        lambda: jax.jvp(jax.grad(run), (q,), (q,)),
    ):
        with pytest.raises(TypeError, match=r"a second one was asked for.*'blockwise' has them all"):
            second()


# --- The kernel itself -----------------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(
    eligible.compute_capability() < (8, 0),
    reason="needs an NVIDIA GPU of compute capability 8.0: JAX_PLATFORMS=cuda python -m pytest -m gpu",
)
HALF = {"float16": 4e-3, "bfloat16": 3e-2}
"""The kernel rounds weights to the dtype of the operands before the product with values: a few times 2^-11 and 2^-8."""


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (77, 77), (200, 200)], ids=str)
def test_the_kernel_against_the_reference(shape, mask, dtype):
    rows, columns = shape
    sizes = enumerate([(rows, N), (columns, K), (columns, K)])
    arrays = [normal(n, B, length, heads, 64, dtype=dtype) for n, (length, heads) in sizes]
    compare_with_float32(arrays, {"mask": MASKS[mask]}, dtype)


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("size", [8, 40, 128, 256])
def test_head_sizes(size):
    arrays = [
        normal(n, B, rows, heads, size, dtype="bfloat16") for n, (rows, heads) in enumerate([(65, 4), (33, 1), (33, 1)])
    ]
    compare_with_float32(arrays, {"score": scores.scaled_dot(0.1)}, "bfloat16")


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("mapped", [(0, None, None), (None, 0, 0), (0, 0, None)], ids=str)
def test_maps_of_the_kernel(mapped):
    arrays = [
        normal(n, *((3,) if axis == 0 else ()), B, 64, heads, 64, dtype="bfloat16")
        for n, (axis, heads) in enumerate(zip(mapped, (N, K, K), strict=True))
    ]
    compare_with_float32(arrays, {"mask": masks.causal()}, "bfloat16", mapped)


def compare_with_float32(arrays: list, rule: dict, dtype: str, mapped: tuple | None = None) -> None:
    """Output and gradients of the kernel against the dense formula, with the same numbers in float32."""

    def results(name: str, *arrays: jax.Array) -> list[jax.Array]:
        run = lambda *x: attend_heads(*x, **rule, implementation=name)  # noqa: E731
        with_gradient = lambda *x: (run(*x), jax.vjp(run, *x)[1](jnp.cos(x[0])))  # noqa: E731
        return jax.tree.leaves(jax.jit(jax.vmap(with_gradient, mapped) if mapped else with_gradient)(*arrays))

    with jax.default_matmul_precision("highest"):
        expected = results("reference", *(x.astype(jnp.float32) for x in arrays))
    actual = results("cudnn", *arrays)
    assert all(x.dtype == dtype for x in actual)
    check_close(actual, expected, HALF[dtype])
