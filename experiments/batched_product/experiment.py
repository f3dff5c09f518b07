"""One batch of products, computed in four ways, and attention over a batch in two."""

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
    """Both factors, their product in four ways, and attention over the same batch, mapped and whole."""

    left: jax.Array
    right: jax.Array
    ways: dict[str, jax.Array]
    attention: dict[str, jax.Array]

    def distances(self) -> dict[str, float]:
        """Largest difference of each way from `vmap`, and of attention on the whole batch from mapped attention."""
        (_, mapped), *others = self.ways.items()
        return {name: distance(product, mapped) for name, product in others} | {
            "attend, whole batch": distance(*self.attention.values())
        }


def distance(x: jax.Array, y: jax.Array) -> float:
    """Largest absolute difference between two arrays."""
    return float(np.max(np.abs(np.asarray(x) - np.asarray(y))))


def run(config: Config | None = None) -> Products:
    """Multiply random factors by `vmap` of `@`, `@` on whole arrays, einsum and `torch.bmm`."""
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
