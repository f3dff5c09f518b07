"""Competitors of `benchmarks.attention`: this library, jax.nn, tokamax, PyTorch's SDPA and its compiled FlexAttention.

Each gets a mask as its users would write it: a flag where there is one, a function where it takes functions, a dense
mask or bias elsewhere. A case is (kind, T, H); a maker compiles the calls, and the caller times them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.worker import PreparedCall, Runs, compile_jax

HEADS = 4
WINDOW = 256
KINDS = ("full", "causal", "window", "documents", "alibi", "prefix")
PASSES = ("forward", "forward and backward")


def operands(length: int, size: int) -> list[np.ndarray]:
    """Query, key, value `[T, N, H]`."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, HEADS, size), dtype=np.float32) for _ in range(3)]


def documents(length: int) -> np.ndarray:
    """Segment ids `[T]`: documents of 64 to 1023 tokens."""
    lengths = np.random.default_rng(1).integers(64, 1024, size=length)
    return np.repeat(np.arange(length), lengths)[:length].astype(np.int32)


def slopes() -> np.ndarray:
    """ALiBi slopes `[N]`."""
    return 2.0 ** -np.arange(2, 2 * HEADS + 1, 2, dtype=np.float32)


def dense_mask(kind: str, length: int) -> np.ndarray | None:
    """bool `[T, S]`, True = may attend; None for all pairs."""
    q, k = np.arange(length)[:, None], np.arange(length)[None]
    if kind == "documents":
        ids = documents(length)
        return (k <= q) & (ids[:, None] == ids[None])
    masks = {"full": None, "window": (k <= q) & (k > q - WINDOW), "prefix": (k <= q) | (k < length // 4)}
    return masks.get(kind, k <= q)


def alibi(length: int) -> np.ndarray:
    """ALiBi bias `[N, T, S]`."""
    distance = np.abs(np.arange(length)[:, None] - np.arange(length)[None]).astype(np.float32)
    return -slopes()[:, None, None] * distance


def library(kind: str, length: int, size: int) -> Runs:
    """This library, with the automatic choice of the implementation."""
    from jax_attention import attend_heads, masks, mods

    ids = documents(length)  # an argument of the program, because every batch has other documents
    rules = lambda ids: {  # noqa: E731
        "full": {},
        "causal": {"mask": masks.causal()},
        "window": {"mask": masks.sliding_window(WINDOW)},
        "documents": {"mask": masks.causal() & masks.segments(ids)},
        "alibi": {"mask": masks.causal(), "mods": (mods.alibi(slopes()),)},
        "prefix": {"mask": masks.causal() | masks.prefix(length // 4)},
    }
    return _jax_runs(lambda q, k, v, ids: attend_heads(q, k, v, **rules(ids)[kind]), *operands(length, size), ids)


def jax_nn(kind: str, length: int, size: int) -> Runs:
    """`jax.nn.dot_product_attention` with the mask or bias that its users would make."""
    import jax

    return _like_jax_nn(jax.nn.dot_product_attention, kind, length, size)


def tokamax(kind: str, length: int, size: int) -> Runs:
    """`tokamax.dot_product_attention` in chunks, its form for a CPU that needs little memory."""
    import functools

    import tokamax

    attention = functools.partial(tokamax.dot_product_attention, implementation="xla_chunked")
    return _like_jax_nn(attention, kind, length, size)


def _like_jax_nn(attention: Callable, kind: str, length: int, size: int) -> Runs:
    """Calls of any function with the signature of `jax.nn.dot_product_attention`."""
    import jax.numpy as jnp

    options: dict = {"is_causal": kind in ("causal", "alibi", "window")}
    arrays: dict = {}
    if kind == "window":
        options["local_window_size"] = (WINDOW - 1, 0)
    if kind in ("documents", "prefix"):
        arrays["mask"] = jnp.asarray(dense_mask(kind, length))[None, None]
    if kind == "alibi":
        arrays["bias"] = jnp.asarray(alibi(length))[None]
    run = lambda q, k, v, arrays: attention(q[None], k[None], v[None], **options, **arrays)[0]  # noqa: E731
    return _jax_runs(run, *operands(length, size), arrays)


def _jax_runs(attention: Callable, *arrays: Any) -> Runs:
    """Calls of a JAX function: forward, and forward with the gradients of query, key and value."""
    import jax
    import jax.numpy as jnp

    arrays = jax.tree.map(jnp.asarray, arrays)
    both = jax.grad(lambda *x: jnp.sum(jnp.sin(attention(*x))), (0, 1, 2))
    return {label: compile_jax(run, *arrays) for label, run in zip(PASSES, (attention, both), strict=True)}


def torch(kind: str, length: int, size: int) -> Runs:
    """`torch.nn.functional.scaled_dot_product_attention`, with a dense mask or bias where it has no flag."""
    import torch

    q, k, v = (x.requires_grad_() for x in _tensors(length, size))
    options: dict = {"is_causal": True} if kind == "causal" else {}
    if kind in ("window", "documents", "prefix"):
        options["attn_mask"] = torch.from_numpy(dense_mask(kind, length))
    if kind == "alibi":
        bias = np.where(dense_mask("causal", length), alibi(length), np.float32(-np.inf))
        options["attn_mask"] = torch.from_numpy(bias)[None]
    attention = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)  # noqa: E731
    gradients = lambda: torch.autograd.grad(attention().sin().sum(), (q, k, v))  # noqa: E731
    both = lambda: [_rows_first(x) for x in gradients()]  # noqa: E731
    return {PASSES[0]: PreparedCall(_forward(attention)), PASSES[1]: PreparedCall(both)}


def flex(kind: str, length: int, size: int) -> Runs:
    """`flex_attention` under `torch.compile`, which writes C++ (a compiler must be there); on a CPU forward only."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch._dynamo.reset()  # otherwise Dynamo compiles the ninth case for dynamic shapes, which are slower
    q, k, v = _tensors(length, size)
    ids, slope = torch.from_numpy(documents(length)), torch.from_numpy(slopes())
    rules = {
        "causal": lambda b, h, i, j: j <= i,
        "window": lambda b, h, i, j: (j <= i) & (j > i - WINDOW),
        "documents": lambda b, h, i, j: (j <= i) & (ids[i] == ids[j]),
        "alibi": lambda b, h, i, j: j <= i,
        "prefix": lambda b, h, i, j: (j <= i) | (j < length // 4),
    }
    options: dict = {}
    if kind in rules:
        options["block_mask"] = create_block_mask(rules[kind], None, None, length, length, device="cpu")
    if kind == "alibi":
        options["score_mod"] = lambda score, b, h, i, j: score - slope[h] * (i - j).abs()
    attention = torch.compile(flex_attention, dynamic=False)
    forward = _forward(lambda: attention(q, k, v, **options))
    forward()
    no_gradient = PreparedCall(None, "FlexAttention has no backward pass on a CPU")
    return {PASSES[0]: PreparedCall(forward), PASSES[1]: no_gradient}


def _tensors(length: int, size: int) -> list:
    """Query, key, value in PyTorch's layout `[1, N, T, H]`."""
    import torch

    return [torch.from_numpy(x.swapaxes(0, 1).copy())[None] for x in operands(length, size)]


def _forward(attention: Callable) -> Callable[[], np.ndarray]:
    """A call that returns the output as `[T, N, H]` and builds no graph for gradients."""
    import torch

    def forward() -> np.ndarray:
        with torch.no_grad():
            return _rows_first(attention())

    return forward


def _rows_first(x: Any) -> np.ndarray:
    """A tensor `[1, N, T, H]` as an array `[T, N, H]`."""
    return x[0].transpose(0, 1).numpy()


MAKERS = {"jax_attention": library, "jax.nn": jax_nn, "tokamax": tokamax, "torch": torch, "flex": flex}
