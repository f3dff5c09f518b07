"""Arrays of a training state in host memory and back on devices, random keys included."""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_key(x: Any) -> bool:
    """Whether x is an array of typed random keys (or the abstract shape of one)."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def to_host(x: Any) -> np.ndarray:
    """A copy in host memory; random keys as their bits.

    A copy, because on a CPU `np.asarray` is a view of the jax array's buffer, and while a view exists the next step
    cannot reuse the buffer that was donated to it.
    """
    return np.array(jax.random.key_data(x) if is_key(x) else x, copy=True)


def to_device(array: np.ndarray, like: Any, impl: str | None) -> jax.Array:
    """A host array as a jax array with the sharding of `like`, where that was committed to a device."""
    x = jnp.asarray(array)
    if is_key(like):
        x = jax.random.wrap_key_data(x, impl=impl)
    sharding = getattr(like, "sharding", None) if getattr(like, "committed", True) else None
    return x if sharding is None else jax.device_put(x, sharding)


def checksum(array: np.ndarray) -> int:
    """CRC-32 of the bytes of an array in C order."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
