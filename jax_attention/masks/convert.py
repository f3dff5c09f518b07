"""Conversion of masks and windows of other libraries: polarity, layout and counting conventions in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp

from jax_attention.core.checks import check_int, describe_array
from jax_attention.masks.base import Mask
from jax_attention.masks.data import dense
from jax_attention.masks.positional import SlidingWindow, sliding_window
from jax_attention.mods import Mod, bias

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


class MaskAndMods(NamedTuple):
    """A converted mask: the boolean one in `mask`, additive ones in `mods`; `attend(..., **converted._asdict())`."""

    mask: Mask | None
    mods: tuple[Mod, ...]


def from_torch_sdpa(attn_mask: Bool[Array, "*batch T S"] | Float[Array, "*batch T S"]) -> MaskAndMods:
    """The `attn_mask` of `torch.nn.functional.scaled_dot_product_attention`.

        bool: True = may attend, as here;        float: added to the scores, -inf forbids

    Args:
        attn_mask: `[..., T, S]`, a NumPy or JAX array (`tensor.numpy()`).

    Returns:
        `(mask, mods)`, keyword arguments of `attend` and `attend_heads`.

    Raises:
        TypeError: if it is neither bool nor float.
        ValueError: if it has fewer than two axes.

    Example:
        >>> import numpy as np
        >>> from jax_attention import masks
        >>> masks.from_torch_sdpa(np.array([[True, False]]))
        MaskAndMods(mask=dense(array=bool[1,2]), mods=())

    Reference:
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
    """
    return _bool_or_bias("attn_mask", attn_mask, flip=False)


def from_torch_mha(
    attn_mask: Bool[Array, "*any T S"] | Float[Array, "*any T S"] | None = None,
    key_padding_mask: Bool[Array, "*batch S"] | Float[Array, "*batch S"] | None = None,
    *,
    num_heads: int | None = None,
) -> MaskAndMods:
    """The masks of `torch.nn.MultiheadAttention` and `torch.nn.Transformer*`, whose True means *forbidden*.

        allowed = ~attn_mask & ~key_padding_mask;        floats are added to the scores, -inf forbids

    Args:
        attn_mask: `[T, S]` or `[B * num_heads, T, S]`.
        key_padding_mask: `[B, S]`, or `[S]` without batch.
        num_heads: needed to split the first axis of a three-dimensional `attn_mask` into batch and heads.

    Returns:
        `(mask, mods)` for `attend_heads` and `nn.MultiHeadAttention`.

    Raises:
        ValueError: if both are None, a rank is wrong, or a 3-d `attn_mask` comes without `num_heads`.
        TypeError: if one is neither bool nor float.

    Example:
        >>> import numpy as np
        >>> from jax_attention import masks
        >>> masks.from_torch_mha(key_padding_mask=np.array([[False, True]])).mask
        dense(array=bool[1,1,1,2])

    Reference:
        https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html
    """
    if attn_mask is None and key_padding_mask is None:
        raise ValueError("attn_mask, key_padding_mask: expected at least one of them, got None for both.")
    converted = []
    if attn_mask is not None:
        attn_mask = jnp.asarray(attn_mask)
        if attn_mask.ndim == 3:
            heads = check_int("num_heads", num_heads, 1, "A 3-d attn_mask is [B * num_heads, T, S]: pass num_heads.")
            if attn_mask.shape[0] % heads:
                raise ValueError(
                    f"attn_mask: expected a first axis divisible by num_heads = {heads}, got "
                    f"{describe_array(attn_mask)}."
                )
            attn_mask = attn_mask.reshape(-1, heads, *attn_mask.shape[1:])
            attn_mask = attn_mask[0] if len(attn_mask) == 1 else attn_mask  # one example fits with or without batch
        elif attn_mask.ndim != 2:
            raise ValueError(f"attn_mask: expected [T, S] or [B * num_heads, T, S], got {describe_array(attn_mask)}.")
        converted.append(_bool_or_bias("attn_mask", attn_mask, flip=True))
    if key_padding_mask is not None:
        padding = jnp.asarray(key_padding_mask)
        if padding.ndim not in (1, 2):
            raise ValueError(f"key_padding_mask: expected [B, S] or [S], got {describe_array(padding)}.")
        padding = padding[None, :] if padding.ndim == 1 else padding[:, None, None, :]
        converted.append(_bool_or_bias("key_padding_mask", padding, flip=True))
    allowed = [each.mask for each in converted if each.mask is not None]
    mask = None if not allowed else allowed[0] if len(allowed) == 1 else allowed[0] & allowed[1]
    return MaskAndMods(mask, tuple(mod for each in converted for mod in each.mods))


def from_huggingface(
    attention_mask: Int[Array, "B S"] | Bool[Array, "B S"] | Bool[Array, "B one T S"] | Float[Array, "B one T S"],
) -> MaskAndMods:
    """The `attention_mask` of Hugging Face transformers, for `attend_heads`.

        [B, S]: allowed = attention_mask != 0;        [B, 1, T, S] bool: as it is
        [B, 1, T, S] float: added to the scores; the dtype's lowest number (or anything beyond half of it) forbids

    Args:
        attention_mask: the tokenizer's `[B, S]` of ones and zeros, or a prepared `[B, 1, T, S]`.

    Returns:
        `(mask, mods)`; mods hold the bias of a float mask, and are empty otherwise.

    Raises:
        ValueError: if it has neither two nor four axes.

    Example:
        >>> import numpy as np
        >>> from jax_attention import masks
        >>> masks.from_huggingface(np.array([[1, 1, 0]])).mask
        dense(array=bool[1,1,1,3])

    Reference:
        https://huggingface.co/docs/transformers/glossary#attention-mask
    """
    mask = jnp.asarray(attention_mask)
    if mask.ndim == 2:
        return MaskAndMods(dense((mask != 0)[:, None, None, :]), ())
    if mask.ndim == 4:
        if not jnp.issubdtype(mask.dtype, jnp.floating):
            return MaskAndMods(dense(mask != 0), ())
        # transformers writes finfo.min for "forbidden", and adds masks, so a little more or less; half of it is far
        # beyond any bias. The constant is recognised here and replaced by a mask: nothing computes with it.
        allowed = mask > -0.5 * jnp.finfo(mask.dtype).max
        return MaskAndMods(dense(allowed), (bias(jnp.where(allowed, mask, 0)),))
    raise ValueError(f"attention_mask: expected [B, S] or [B, 1, T, S], got {describe_array(mask)}.")


def from_huggingface_window(sliding_window_size: int) -> SlidingWindow:
    """The `sliding_window` of a Hugging Face config (Mistral, Gemma 2, Qwen2, Phi-3): keys, the query's own included.

        allowed(t, s)  <=>  q_pos - sliding_window < k_pos <= q_pos

    Args:
        sliding_window_size: the number in the config.

    Returns:
        A mask.

    Raises:
        TypeError: if it is not a Python int.
        ValueError: if it is smaller than 1.

    Example:
        >>> from jax_attention import masks
        >>> masks.from_huggingface_window(4)
        sliding_window(left=4)

    Reference:
        Jiang et al. (2023), "Mistral 7B", section 2.
    """
    return sliding_window(check_int("sliding_window_size", sliding_window_size, 1, "It counts the query itself."))


def from_flash_window(
    window_size: tuple[int, int], query_length: int, key_length: int, *, causal: bool = False
) -> SlidingWindow:
    """The `window_size=(left, right)` and `causal` of Flash-Attention (from 2.1), aligned at the ends.

        allowed(t, s)  <=>  q' - left <= s <= q' + right,        q' = t + S - T;  -1 = unlimited;  causal: right = 0

    Args:
        window_size: keys before and after the query, itself not counted.
        query_length: T.
        key_length: S.
        causal: the flag of `flash_attn_func`.

    Returns:
        A mask.

    Raises:
        TypeError: if the sizes are not Python ints.
        ValueError: if one is smaller than -1.

    Example:
        >>> from jax_attention import masks
        >>> masks.from_flash_window((3, 0), 8, 8)
        sliding_window(left=4)

    Reference:
        https://github.com/Dao-AILab/flash-attention, `flash_attn_interface.py`.
    """
    left, right = (check_int("window_size", x, -1, "-1 means unlimited.") for x in window_size)
    right = 0 if causal else right
    return sliding_window(None if left < 0 else left + 1, None if right < 0 else right, key_length - query_length)


def from_jax_nn_window(local_window_size: int | tuple[int, int]) -> SlidingWindow:
    """The `local_window_size` of `jax.nn.dot_product_attention`.

        allowed(t, s)  <=>  t - left <= s <= t + right;        one int w means (w, w)

    Args:
        local_window_size: keys before and after the query, itself not counted.

    Returns:
        A mask.

    Raises:
        TypeError: if the sizes are not Python ints.
        ValueError: if one is negative.

    Example:
        >>> from jax_attention import masks
        >>> masks.from_jax_nn_window((3, 0))
        sliding_window(left=4)

    Reference:
        https://docs.jax.dev/en/latest/_autosummary/jax.nn.dot_product_attention.html
    """
    pair = local_window_size if isinstance(local_window_size, tuple) else (local_window_size, local_window_size)
    cure = "Pass (left, right) without counting the query itself."
    if len(pair) != 2:
        raise ValueError(f"local_window_size: expected an int or a pair, got {local_window_size!r}. {cure}")
    left, right = (check_int("local_window_size", x, 0, cure) for x in pair)
    return sliding_window(left + 1, right)


def _bool_or_bias(name: str, array: Array, flip: bool) -> MaskAndMods:
    """A bool array as a mask (negated if `flip`); a float one as a mask where it is -inf and a bias elsewhere."""
    array = jnp.asarray(array)
    if array.dtype == bool:
        return MaskAndMods(dense(~array if flip else array), ())
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name}: expected bool or float, got {describe_array(array)}. Write {name} != 0 for 0/1 values."
        )
    forbidden = jnp.isneginf(array)
    return MaskAndMods(dense(~forbidden), (bias(jnp.where(forbidden, 0, array)),))
