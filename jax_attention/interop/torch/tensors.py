"""Arrays between PyTorch, NumPy and JAX, bit by bit. bfloat16, which NumPy lacks, goes through int16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import describe_array

BFLOAT16 = np.dtype(jnp.bfloat16)


def import_torch() -> Any:
    """Import PyTorch, an optional dependency."""
    try:
        import torch
    except ImportError:
        raise ImportError(
            "torch: expected PyTorch to be installed, got no such module. Run: pip install jax_attention[interop]"
        ) from None
    return torch


@contextmanager
def highest_precision(torch: Any) -> Iterator[None]:
    """Let PyTorch multiply in full float32, whatever the caller has set, and restore the setting."""
    setting = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(setting)


def to_numpy(x: Any) -> np.ndarray:
    """A NumPy array of the same bits, from a PyTorch tensor or a JAX or NumPy array. It may share their memory."""
    if not hasattr(x, "detach"):
        return np.asarray(x)
    torch, x = import_torch(), x.detach().cpu()
    # Tensors may be negated lazily, which numpy() refuses.
    return x.view(torch.int16).numpy().view(BFLOAT16) if x.dtype == torch.bfloat16 else x.resolve_neg().numpy()


def to_tensor(x: Any) -> Any:
    """A PyTorch tensor of the same bits, from a NumPy or JAX array. It is a copy."""
    torch, copy = import_torch(), np.array(x)
    if copy.dtype == BFLOAT16:
        return torch.from_numpy(copy.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copy)


def to_jax(name: str, x: Any) -> jax.Array:
    """A JAX array of the same bits, from floating-point numbers. It is a copy; `name` is for error messages."""
    x = to_numpy(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name}: expected floating-point numbers, got {describe_array(x)}. Turn quantised "
            "parameters back first; for complex ones there is no layer."
        )
    if x.dtype == np.float64 and not jax.config.jax_enable_x64:
        raise ValueError(
            f"{name}: expected at most 32 bits, as JAX drops the others, got {describe_array(x)}. Either turn them on, "
            'jax.config.update("jax_enable_x64", True), or drop them yourself: x.float() in PyTorch.'
        )
    return jnp.array(x)
