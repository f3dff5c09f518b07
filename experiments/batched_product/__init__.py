"""The batched product of matrices: one product, mapped.

Question: is a batch of products anything else than one product, mapped over the batch?
Command:  python -m experiments.batched_product
Time:     4 seconds of CPU time.
Result:   no. `vmap` of `@`, `@` and einsum agree bit for bit, torch.bmm to 5e-7; attention mapped is attention on the
          batch, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import attend


@dataclass(frozen=True)
class Config:
    """Sizes `[b, n, m] x [b, m, p]`."""

    b: int = 10
    n: int = 3
    m: int = 4
    p: int = 5
    seed: int = 0


class Products(NamedTuple):
    """Both factors, the product by four ways, and attention over the same batch mapped and whole."""

    left: jax.Array
    right: jax.Array
    ways: dict[str, jax.Array]
    attention: dict[str, jax.Array]

    def distances(self) -> dict[str, float]:
        """The largest difference of any way from `vmap`, and of attention on the whole batch from attention mapped."""
        mapped, *others = self.ways.items()
        found = {name: distance(product, mapped[1]) for name, product in others}
        return found | {"attend, whole batch": distance(*self.attention.values())}


def distance(x: jax.Array, y: jax.Array) -> float:
    """The largest difference of two entries."""
    return float(np.max(np.abs(np.asarray(x) - np.asarray(y))))


def run(config: Config | None = None) -> Products:
    """Random factors, multiplied by `vmap` of `@`, `@` on whole arrays, einsum and `torch.bmm`."""
    import torch

    config = Config() if config is None else config
    rng = np.random.default_rng(config.seed)
    left = rng.normal(size=(config.b, config.n, config.m)).astype(np.float32)
    right = rng.normal(size=(config.b, config.m, config.p)).astype(np.float32)
    a, b = jnp.asarray(left), jnp.asarray(right)
    ways = {
        "vmap of @": jax.vmap(jnp.matmul)(a, b),
        "@": a @ b,
        "einsum": jnp.einsum("bnm,bmp->bnp", a, b),
        "torch.bmm": jnp.asarray(torch.bmm(torch.from_numpy(left), torch.from_numpy(right)).numpy()),
    }
    attention = {"mapped": jax.jit(jax.vmap(attend))(a, a, a), "whole": jax.jit(attend)(a, a, a)}
    return Products(a, b, ways, attention)
