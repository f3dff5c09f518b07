"""Pictures of the masks: each alone, and combined with another mask or aligned differently."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from docs._draw.drawing import label, mask_grid
from jax_attention import masks


def causal(a, b) -> None:
    """Causal masks aligned at the start, and at the end."""
    mask_grid(a, masks.causal())
    mask_grid(b, masks.causal(offset=3), queries=5, title="causal(offset=3): 5 queries end with 8 keys")


def sliding_window(a, b) -> None:
    """Windows of three keys up to the query, and of one key on each side."""
    mask_grid(a, masks.sliding_window(3))
    mask_grid(b, masks.sliding_window(2, 1))


def prefix(a, b) -> None:
    """A prefix alone, and united with a causal mask."""
    mask_grid(a, masks.prefix(3))
    mask_grid(b, masks.causal() | masks.prefix(3))


def lengths(a, b) -> None:
    """Padding of the keys, and of the queries too."""
    mask_grid(a, masks.lengths(5))
    mask_grid(b, masks.lengths(5, 6))


def segments(a, b) -> None:
    """Three packed documents, without and with a causal mask."""
    packed = masks.segments(jnp.array([0, 0, 0, 1, 1, 1, 1, 2]))
    mask_grid(a, packed, title="segments of 3, 4 and 1 tokens")
    mask_grid(b, packed & masks.causal(), title="segments & causal()")


def dilated(a, b) -> None:
    """A dilated mask alone, and intersected with a causal mask."""
    mask_grid(a, masks.dilated(2))
    mask_grid(b, masks.dilated(3) & masks.causal())


def chunked(a, b) -> None:
    """A chunked mask alone, and intersected with a causal mask."""
    mask_grid(a, masks.chunked(4))
    mask_grid(b, masks.chunked(3) & masks.causal())


def dense(a, b) -> None:
    """A tree, which no function of positions describes, and one row of padding for all queries."""
    parents = [-1, 0, 0, 1, 1, 2, 2, 5]
    tree = np.eye(8, dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            tree[node] |= tree[parent]
    mask_grid(a, masks.dense(tree), title="dense(tree): every node sees its ancestors")
    keep = np.array([[True, True, False, True, True, True, False, False]])
    mask_grid(b, masks.dense(keep), title="dense(array of shape [1, 8])")


def block_sparse(a, b) -> None:
    """The grid of blocks, and the pairs that it allows."""
    blocks = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]], bool)
    mask_grid(a, masks.dense(blocks), 4, 4, title="blocks")
    label(a, "blocks", "key block (blue: allowed)", "query block")
    mask_grid(b, masks.block_sparse(blocks, 2), title="block_sparse(blocks, 2)")
