"""Competitors of the GPU benchmark: each prepares a case to run, forward, and forward with backward.

A competitor that cannot run a case raises; the message is part of the results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.cases import CAP, WINDOW, Case, dense_mask, documents, operands, prefix, score_bytes, slopes

DENSE_LIMIT = 24 * 2**30
"""Bytes of three arrays of scores above which a dense competitor is skipped, as it would run out of memory."""


class Runs(NamedTuple):
    """A prepared case. `both` returns the output and three gradients; `memory` is in bytes, without the operands."""

    forward: Callable[[], Any]
    both: Callable[[], Any]
    wait: Callable[[Any], None]
    numpy: Callable[[Any], list[np.ndarray]]
    memory: dict[str, int | None]


# JAX


def library(case: Case, implementation: str | None = None) -> Runs:
    """This library, with a named or the automatically chosen implementation."""
    from jax_attention import attend_heads, masks, mods

    ids = [documents(case.length)] if case.kind == "documents" else []
    rules = {
        "full": lambda: {},
        "causal": lambda: {"mask": masks.causal()},
        "window": lambda: {"mask": masks.sliding_window(WINDOW)},
        "documents": lambda ids: {"mask": masks.causal() & masks.segments(ids)},
        "alibi": lambda: {"mask": masks.causal(), "mods": (mods.alibi(slopes(case.heads)),)},
        "soft_cap": lambda: {"mask": masks.causal(), "mods": (mods.soft_cap(CAP),)},
        "prefix": lambda: {"mask": masks.causal() | masks.prefix(prefix(case.length))},
    }

    def attention(q: Any, k: Any, v: Any, *ids: Any) -> Any:
        return attend_heads(q, k, v, **rules[case.kind](*ids), implementation=implementation)

    return _in_jax(case, attention, *ids)


def jax_nn(case: Case, implementation: str) -> Runs:
    """`jax.nn.dot_product_attention` with the mask or bias that its users would make."""
    import jax
    import jax.numpy as jnp

    if case.kind == "soft_cap":
        raise NotImplementedError("jax.nn has no soft cap")
    if implementation == "xla":
        _check_memory(case)
    options: dict = {"is_causal": case.kind in ("causal", "alibi", "window"), "implementation": implementation}
    if case.kind == "window":
        options["local_window_size"] = (WINDOW - 1, 0)
    name, extra = None, []
    if case.kind in ("documents", "prefix"):
        name, extra = "mask", [dense_mask(case)[None, None]]
    if case.kind == "alibi":
        t = jnp.arange(case.length)
        distance = jnp.abs(t[:, None] - t)[None].astype(jnp.float32)
        name, extra = "bias", [(-slopes(case.heads)[:, None, None] * distance)[None]]
        extra = [x.astype(case.dtype) for x in extra] if implementation == "cudnn" else extra

    def attention(q: Any, k: Any, v: Any, *extra: Any) -> Any:
        keyword = {} if name is None else {name: extra[0]}
        return jax.nn.dot_product_attention(q, k, v, **options, **keyword)

    return _in_jax(case, attention, *extra)


def _check_memory(case: Case) -> None:
    if 3 * score_bytes(case) > DENSE_LIMIT:
        raise MemoryError(f"skipped: three dense arrays of scores are {3 * score_bytes(case) / 2**30:.0f} GiB")


def _in_jax(case: Case, attention: Callable, *extra: Any) -> Runs:
    import jax
    import jax.numpy as jnp

    q, k, v, cotangent = (jnp.asarray(x, case.dtype) for x in operands(case))
    extra = [jnp.asarray(x) for x in extra]

    def both(q: Any, k: Any, v: Any, cotangent: Any, *extra: Any) -> tuple:
        output, pullback = jax.vjp(lambda *x: attention(*x, *extra), q, k, v)
        return output, *pullback(cotangent)

    forward = jax.jit(attention).lower(q, k, v, *extra).compile()
    with_backward = jax.jit(both).lower(q, k, v, cotangent, *extra).compile()

    def memory_bytes(compiled: Any) -> int | None:
        analysis = compiled.memory_analysis()
        return None if analysis is None else analysis.temp_size_in_bytes + analysis.output_size_in_bytes

    return Runs(
        forward=lambda: forward(q, k, v, *extra),
        both=lambda: with_backward(q, k, v, cotangent, *extra),
        wait=lambda x: jax.block_until_ready(x),
        numpy=lambda x: [np.asarray(part, np.float32) for part in jax.tree.leaves(x)],
        memory={"forward": memory_bytes(forward), "forward and backward": memory_bytes(with_backward)},
    )


# PyTorch


def sdpa(case: Case, backend: str) -> Runs:
    """`scaled_dot_product_attention` with one kernel only; a dense mask or bias where `is_causal` is not enough."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if case.kind == "soft_cap":
        raise NotImplementedError("scaled_dot_product_attention has no soft cap")
    if case.kind not in ("full", "causal"):
        _check_memory(case._replace(batch=1))
    options: dict = {"is_causal": case.kind == "causal"}
    if case.kind in ("window", "documents", "prefix"):
        options["attn_mask"] = torch.from_numpy(dense_mask(case)).to(_device())
    if case.kind == "alibi":
        t = torch.arange(case.length, device=_device())
        distance = (t[:, None] - t)[None].float()
        slope = torch.from_numpy(slopes(case.heads)).to(_device())[:, None, None]
        bias = (-slope * distance).to(getattr(torch, case.dtype))
        options["attn_mask"] = bias.masked_fill_(distance < 0, -torch.inf)[None]

    def attention(q: Any, k: Any, v: Any) -> Any:
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    return _in_torch(case, attention)


def flex(case: Case) -> Runs:
    """FlexAttention under `torch.compile`, with a block mask and a score function."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if not torch.cuda.is_available():
        raise RuntimeError("needs a GPU")
    device = _device()
    ids = torch.from_numpy(documents(case.length)).to(device)
    slope = torch.from_numpy(slopes(case.heads)).to(device)
    first = prefix(case.length)
    masks = {
        "window": lambda b, h, q, k: (q >= k) & (q - k < WINDOW),
        "documents": lambda b, h, q, k: (q >= k) & (ids[q] == ids[k]),
        "prefix": lambda b, h, q, k: (q >= k) | (k < first),
    }
    changes = {
        "alibi": lambda score, b, h, q, k: score - slope[h] * (q - k),
        "soft_cap": lambda score, b, h, q, k: CAP * torch.tanh(score / CAP),
    }
    torch._dynamo.reset()
    options: dict = {"score_mod": changes.get(case.kind)}
    if case.kind != "full":
        mask = masks.get(case.kind, lambda b, h, q, k: q >= k)
        options["block_mask"] = create_block_mask(mask, None, None, case.length, case.length, device=device)
    compiled = torch.compile(flex_attention)
    return _in_torch(case, lambda q, k, v: compiled(q, k, v, **options))


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _in_torch(case: Case, attention: Callable) -> Runs:
    import torch

    torch.set_float32_matmul_precision("high")  # TF32, the default of JAX, so that both sides do the same work
    dtype, gpu = getattr(torch, case.dtype), torch.cuda.is_available()
    arrays = [torch.from_numpy(x).to(_device(), dtype).transpose(1, 2).contiguous() for x in operands(case)]
    q, k, v = (x.requires_grad_() for x in arrays[:3])

    def forward() -> Any:
        with torch.no_grad():
            return (attention(q, k, v),)

    def both() -> Any:
        output = attention(q, k, v)
        return output.detach(), *torch.autograd.grad(output, (q, k, v), arrays[3])

    def memory_bytes(run: Callable) -> int | None:
        if not gpu:
            return None
        run()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    return Runs(
        forward,
        both,
        wait=lambda _: torch.cuda.synchronize() if gpu else None,
        numpy=lambda x: [part.float().transpose(1, 2).cpu().numpy() for part in x],
        memory={"forward": memory_bytes(forward), "forward and backward": memory_bytes(both)},
    )


COMPETITORS: dict[str, tuple[str, Callable[[Case], Runs]]] = {
    "jax_attention": ("jax", library),
    "jax_attention cudnn": ("jax", lambda case: library(case, "cudnn")),
    "jax.nn cudnn": ("jax", lambda case: jax_nn(case, "cudnn")),
    "jax.nn xla": ("jax", lambda case: jax_nn(case, "xla")),
    "torch flash": ("torch", lambda case: sdpa(case, "FLASH_ATTENTION")),
    "torch cudnn": ("torch", lambda case: sdpa(case, "CUDNN_ATTENTION")),
    "torch efficient": ("torch", lambda case: sdpa(case, "EFFICIENT_ATTENTION")),
    "torch flex": ("torch", flex),
}
"""For each competitor its process and the function that prepares it. The first that succeeds is the reference."""
