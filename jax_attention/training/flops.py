"""Model FLOPs utilisation: the floating-point operations of training, and the peak speed of this machine.

The convention is that of the PaLM report. Per token it counts 6 N for the matrices (2 N forward, 4 N backward; a
multiplication and an addition count as two) and 12 L T D for the scores and the sums over values, forward and backward.
Attention is counted in full although a causal mask needs half of it, and recomputation (rematerialisation) is not
counted. So the figure is comparable between programs, and a program that skips masked tiles can even exceed 100 %.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jax_attention.core.checks import check_int
from jax_attention.training import parallel


def train_flops(parameters: int, layers: int, context: int, width: int) -> int:
    """Floating-point operations of the forward and backward pass for one token.

        6 N + 12 L T D

    Args:
        parameters: N, the parameters that enter a product. Tables that are only looked up (positions, an untied token
            table) do not count.
        layers: L.
        context: T, the number of keys per query.
        width: D, the number of heads times the head size.

    Returns:
        An int, per token.

    Raises:
        ValueError: if a number is negative.
        TypeError: if one is not an int.

    Example:
        >>> from jax_attention import training
        >>> training.train_flops(parameters=800_000, layers=4, context=64, width=128)
        5193216

    Reference:
        Chowdhery et al. (2022), "PaLM: scaling language modeling with pathways", appendix B.
    """
    counts = {"parameters": parameters, "layers": layers, "context": context, "width": width}
    n, depth, t, d = (check_int(name, count, 0, "It is a count.") for name, count in counts.items())
    return 6 * n + 12 * depth * t * d


def matmul_peak(dtype: Any = jnp.float32, mesh: Mesh | None = None) -> float:
    """Speed of a large matrix product on all devices of the mesh together, which counts as 100 % utilisation.

        peak = 2 M^3 n / seconds,        M = 1024 on CPUs, 8192 elsewhere,  n devices, fastest of 8

    Measured once per program, dtype and mesh; on CPUs it takes about 0.3 s.

    Args:
        dtype: the dtype of the computation to compare with.
        mesh: from `data_mesh`; all devices if None.

    Returns:
        Floating-point operations per second.

    Example:
        >>> from jax_attention import training
        >>> training.matmul_peak() > 1e8
        True
    """
    return _measured_peak(jnp.dtype(dtype), parallel.data_mesh() if mesh is None else mesh)


@functools.cache
def _measured_peak(dtype: jnp.dtype, mesh: Mesh) -> float:
    # Large enough that the product and not its launch is measured, and small enough for 0.3 s on a CPU.
    size = 1024 if mesh.devices.flat[0].platform == "cpu" else 8192
    row_count = size * mesh.size
    a = parallel.split_rows(jnp.ones((row_count, size), dtype), mesh)
    b = parallel.replicate(jnp.ones((size, size), dtype), mesh)
    product = jax.jit(jnp.matmul, out_shardings=parallel.rows(mesh))
    product(a, b).block_until_ready()  # compilation
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        product(a, b).block_until_ready()
        seconds.append(time.perf_counter() - start)
    # The fastest, as other work on the machine only ever makes a product slower.
    return 2 * row_count * size * size / min(seconds)
