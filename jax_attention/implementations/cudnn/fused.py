"""The kernel and its derivative, under any number of `vmap`s.

jax 0.10 maps the kernel wrongly, or not at all, over shared operands, grouped heads and gradients. So both passes fold
a mapped axis into the batch. The backward pass uses the residuals that jax.nn's own forward pass has saved.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.custom_batching
import jax.numpy as jnp

from jax_attention.core.struct import data_field, struct


class KernelOptions(NamedTuple):
    """Static options of the kernel; the window counts keys, the query's own position included."""

    scale: float
    causal: bool
    window: int | None


def kernel(
    options: KernelOptions,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    lengths: jax.Array | None,
    implementation: str = "cudnn",
) -> jax.Array:
    """`[B, T, N, H]` by `[B, S, K, H]`, with key lengths `[B]`: the one call of jax.nn."""
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        scale=options.scale,
        is_causal=options.causal,
        local_window_size=None if options.window is None else (options.window - 1, 0),
        key_value_seq_lengths=lengths,
        implementation=implementation,
    )


@functools.cache
def attention(options: KernelOptions) -> Callable[..., jax.Array]:
    """The kernel as a function of query, key, value and lengths, to be differentiated once and mapped at will."""

    @jax.custom_vjp
    def run(*operands: Any) -> jax.Array:
        return _over_batches(lambda operands, _: (kernel(options, *operands), []))(operands, [])[0]

    run.defvjp(functools.partial(_forward, options), functools.partial(_backward, options))
    return run


@struct
class _Residuals:
    """Residuals of jax.nn between the passes: arrays, batch axis first; where that axis was; arrays without one; shapes
    of the operands.
    """

    arrays: list[jax.Array] = data_field()
    free: list[jax.Array] = data_field()
    axes: tuple[int | None, ...]
    operands: tuple[jax.ShapeDtypeStruct | None, ...]


def _forward(options: KernelOptions, *operands: Any) -> tuple[jax.Array, _Residuals]:
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), operands)
    axes = _batch_axes(options, shapes, operands[0].shape[0])

    def run(operands: Any, _: list) -> tuple[tuple[jax.Array, list], list]:
        output, pullback = _with_pullback(options, *operands)
        saved = list(zip(jax.tree.leaves(pullback), axes, strict=True))
        arrays = [jnp.moveaxis(x, axis, 0) for x, axis in saved if axis is not None]
        return (output, arrays), [x for x, axis in saved if axis is None]

    (output, arrays), free = _over_batches(run)(operands, [])
    return output, _Residuals(arrays, free, axes, shapes)


def _backward(options: KernelOptions, residuals: _Residuals, cotangent: jax.Array) -> tuple[Any, ...]:
    def run(batched: tuple[list, jax.Array], free: list) -> tuple[Any, list]:
        (arrays, cotangent), free = batched, iter(free)
        arrays = iter(arrays)
        leaves = [next(free) if axis is None else jnp.moveaxis(next(arrays), 0, axis) for axis in residuals.axes]
        structure = jax.tree.structure(_pullback_at(cotangent.shape[0], options, residuals.operands))
        return jax.tree.unflatten(structure, leaves)(cotangent), []

    return *_over_batches(run)((residuals.arrays, cotangent), residuals.free)[0], None


def _with_pullback(options: KernelOptions, *operands: Any) -> tuple[jax.Array, Callable]:
    *differentiable, lengths = operands
    return jax.vjp(lambda *x: kernel(options, *x, lengths), *differentiable)


def _pullback_at(batch: int, options: KernelOptions, shapes: tuple) -> Callable:
    """The pullback at a batch size, with shapes in the place of arrays."""
    operands = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch, *x.shape), x.dtype), shapes)
    return jax.eval_shape(functools.partial(_with_pullback, options), *operands)[1]


def _batch_axes(options: KernelOptions, shapes: tuple, batch: int) -> tuple[int | None, ...]:
    """Where in each array that a pullback holds the batch is, None if nowhere: which axis grows with it."""
    pairs = zip(*(jax.tree.leaves(_pullback_at(n, options, shapes)) for n in (batch, batch + 1)), strict=True)
    return tuple(
        next((axis for axis, sizes in enumerate(zip(a.shape, b.shape, strict=True)) if sizes[0] != sizes[1]), None)
        for a, b in pairs
    )


def _over_batches(function: Callable) -> Callable:
    """`function(arrays[B, ...], free) -> arrays[B, ...], free` with a batch axis B that every map enlarges."""

    @jax.custom_batching.custom_vmap
    def run(arrays: Any, free: list) -> Any:
        return function(arrays, free)

    @run.def_vmap
    def _(size: int, is_mapped: Any, arrays: Any, free: list) -> tuple[Any, Any]:
        def fold(x: jax.Array, mapped: bool) -> jax.Array:
            x = x if mapped else jnp.broadcast_to(x, (size, *x.shape))
            return x.reshape(size * x.shape[1], *x.shape[2:])

        arrays = jax.tree.map(fold, arrays, is_mapped[0])
        free = jax.tree.map(lambda x, mapped: x[0] if mapped else x, free, is_mapped[1])
        arrays, free = run(arrays, free)
        arrays = jax.tree.map(lambda x: x.reshape(size, x.shape[0] // size, *x.shape[1:]), arrays)
        return (arrays, free), (jax.tree.map(lambda _: True, arrays), jax.tree.map(lambda _: False, free))

    once = jax.custom_jvp(run)
    once.defjvp(_no_second_derivative)
    return once


def _no_second_derivative(primals: tuple, tangents: tuple) -> NoReturn:
    raise TypeError(
        "implementation: the cuDNN kernel has one derivative, in reverse mode; a second one was asked for. "
        "implementation='blockwise' has them all."
    )
