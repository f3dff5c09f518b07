"""Masks: which query may attend to which key? True = may attend, everywhere. Combine them by `&`, `|`, `~`.

A plain function `(q_pos[..., T, 1], k_pos[..., 1, S]) -> bool` is accepted wherever a mask is.
"""

from jax_attention.masks.base import And, Mask, Not, Or, UserMask, as_mask
from jax_attention.masks.convert import (
    MaskAndMods,
    from_flash_window,
    from_huggingface,
    from_huggingface_window,
    from_jax_nn_window,
    from_torch_mha,
    from_torch_sdpa,
)
from jax_attention.masks.data import BlockSparse, Dense, Lengths, Segments, block_sparse, dense, lengths, segments
from jax_attention.masks.positional import (
    Causal,
    Chunked,
    Dilated,
    Prefix,
    SlidingWindow,
    causal,
    chunked,
    dilated,
    prefix,
    sliding_window,
)
from jax_attention.masks.properties import fully_masked_rows

CATALOGUE = (causal, sliding_window, prefix, lengths, segments, dilated, chunked, dense, block_sparse)

__all__ = [
    "CATALOGUE",
    "And",
    "BlockSparse",
    "Causal",
    "Chunked",
    "Dense",
    "Dilated",
    "Lengths",
    "Mask",
    "MaskAndMods",
    "Not",
    "Or",
    "UserMask",
    "Prefix",
    "Segments",
    "SlidingWindow",
    "as_mask",
    "block_sparse",
    "causal",
    "chunked",
    "dense",
    "dilated",
    "from_flash_window",
    "from_huggingface",
    "from_huggingface_window",
    "from_jax_nn_window",
    "from_torch_mha",
    "from_torch_sdpa",
    "fully_masked_rows",
    "lengths",
    "prefix",
    "segments",
    "sliding_window",
]
