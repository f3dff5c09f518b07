"""Pictures of the masks: each alone, and joined or aligned differently."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from docs.drawing import label, who_attends
from jax_attention import masks


def causal(a, b) -> None:
    """Aligned at the start, and at the end."""
    who_attends(a, masks.causal())
    who_attends(b, masks.causal(offset=3), queries=5, title="causal(offset=3): 5 queries end with 8 keys")


def sliding_window(a, b) -> None:
    """Three keys, the query included; and one key on each side."""
    who_attends(a, masks.sliding_window(3))
    who_attends(b, masks.sliding_window(2, 1))


def prefix(a, b) -> None:
    """Alone, and joined with a causal mask."""
    who_attends(a, masks.prefix(3))
    who_attends(b, masks.causal() | masks.prefix(3))


def lengths(a, b) -> None:
    """Padding keys, and padding queries too."""
    who_attends(a, masks.lengths(5))
    who_attends(b, masks.lengths(5, 6))


def segments(a, b) -> None:
    """Three packed documents, both ways and causally."""
    packed = masks.segments(jnp.array([0, 0, 0, 1, 1, 1, 1, 2]))
    who_attends(a, packed, title="segments of 3, 4 and 1 tokens")
    who_attends(b, packed & masks.causal(), title="segments & causal()")


def dilated(a, b) -> None:
    """Alone, and joined with a causal mask."""
    who_attends(a, masks.dilated(2))
    who_attends(b, masks.dilated(3) & masks.causal())


def chunked(a, b) -> None:
    """Alone, and joined with a causal mask."""
    who_attends(a, masks.chunked(4))
    who_attends(b, masks.chunked(3) & masks.causal())


def dense(a, b) -> None:
    """A tree, which no rule of positions describes, and one row of padding for all queries."""
    parents = [-1, 0, 0, 1, 1, 2, 2, 5]
    tree = np.eye(8, dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            tree[node] |= tree[parent]
    who_attends(a, masks.dense(tree), title="dense(tree): every node sees its ancestors")
    keep = np.array([[True, True, False, True, True, True, False, False]])
    who_attends(b, masks.dense(keep), title="dense(array of shape [1, 8])")


def block_sparse(a, b) -> None:
    """The grid of blocks, and the pairs that it allows."""
    blocks = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]], bool)
    who_attends(a, masks.dense(blocks), 4, 4, title="blocks")
    label(a, "blocks", "key block (blue: allowed)", "query block")
    who_attends(b, masks.block_sparse(blocks, 2), title="block_sparse(blocks, 2)")
