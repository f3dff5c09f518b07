"""Any attention rule inside Flax's multi-head modules, through their `attention_fn` argument. Imports no Flax."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from jax_attention import masks, mods
from jax_attention.attention.attend import attend_heads, attention_weights_heads
from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.dropout import Dropout
from jax_attention.implementations.base import Implementation
from jax_attention.masks import Mask
from jax_attention.mods import Mod
from jax_attention.normalizers import Normalizer
from jax_attention.scores import Score

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


def flax_attention_fn(
    *,
    score: Score | Callable | None = None,
    mods: tuple[Mod | Callable, ...] = (),
    mask: Mask | Callable | None = None,
    normalize: Normalizer | Callable | None = None,
    implementation: str | Implementation | None = None,
    decode: bool | None = None,
) -> Callable[..., Any]:
    """An `attention_fn` for `flax.linen.MultiHeadDotProductAttention` and `flax.nnx.MultiHeadAttention`.

        attention_fn(query, key, value, mask=..., ...) = attend_heads(query, key, value, your rule and Flax's mask)

    What Flax passes is used: `mask` (combined with yours by &), `bias` (added after your mods), dropout rng and rate,
    `broadcast_dropout` (one pattern for batch and heads), `deterministic`, `dtype`, `precision`, `is_causal`, and
    `module` (the weights before dropout are sown as `attention_weights`). Anything else is refused.

    Args:
        score: as in `attend`.
        mods: as in `attend`.
        mask: as in `attend`.
        normalize: as in `attend`.
        implementation: as in `attend`.
        decode: True for Flax's cached decoding. Flax then passes one query and all slots of its cache, but not the
            position of the query, so that is read off the mask: the last slot that may be attended to. False for a
            single query at position 0 (cross-attention). None refuses the one ambiguous case.

    Returns:
        A function with Flax's signature.

    Raises:
        ValueError: by the function: dropout without an rng; custom einsums (`qk_attn_weights_einsum_cls`,
            `einsum_dot_general`), for which a rule has no place; one query against several keys under a rule with a
            mask or mods, unless `decode` says which position it has.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import flax_attention_fn, normalizers
        >>> rule = flax_attention_fn(normalize=normalizers.entmax15())
        >>> layer = nnx.MultiHeadAttention(2, 8, decode=False, attention_fn=rule, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((1, 5, 8))).shape
        (1, 5, 8)

    Reference:
        https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/attention.html

    Differs from Flax: scores are always computed in at least float32 (`force_fp32_for_softmax` is always on), a fully
    masked row gives 0, and dropout bits depend on positions, so they differ from Flax's.
    """
    rule = {"score": score, "normalize": normalize, "implementation": implementation}
    rule_mods, rule_mask = tuple(mods) if isinstance(mods, (tuple, list)) else (mods,), mask
    needs_positions = bool(rule_mods) or rule_mask is not None

    def attention_fn(
        query: Float[Array, "*batch T N H"],
        key: Float[Array, "*batch S K H"],
        value: Float[Array, "*batch S K E"],
        bias: Float[Array, "*any #N #T #S"] | None = None,
        mask: Bool[Array, "*any #N #T #S"] | Float[Array, "*any #N #T #S"] | None = None,
        broadcast_dropout: bool = True,
        dropout_rng: Any = None,
        dropout_rate: float = 0.0,
        deterministic: bool = False,
        dtype: Any = None,
        precision: Any = None,
        module: Any = None,
        force_fp32_for_softmax: bool = False,
        einsum_dot_general: Callable | None = None,
        qk_attn_weights_einsum: Callable | None = None,
        attn_weights_value_einsum: Callable | None = None,
        promote_dtype: Callable | None = None,
        is_causal: bool = False,
    ) -> Any:
        _refuse(
            einsum_dot_general=einsum_dot_general,
            qk_attn_weights_einsum=qk_attn_weights_einsum,
            attn_weights_value_einsum=attn_weights_value_einsum,
        )
        fail_unless(
            query.shape[:-3] == key.shape[:-3] == value.shape[:-3],
            "query, key, value: expected the same batch dimensions, as in Flax, got "
            f"{', '.join(map(describe_array, (query, key, value)))}. attend_heads broadcasts them.",
        )
        if promote_dtype is not None:
            query, key, value = promote_dtype((query, key, value), dtype=dtype)
        else:
            dtype = jnp.result_type(query, key, value) if dtype is None else dtype
            query, key, value = (x.astype(dtype) for x in (query, key, value))
        options: dict[str, Any] = {
            **rule,
            "mods": rule_mods if bias is None else (*rule_mods, _bias(bias)),
            "mask": _combine_masks(rule_mask, mask, is_causal),
            "dropout": _dropout(dropout_rng, dropout_rate, broadcast_dropout, deterministic),
            "precision": precision,
            "query_positions": _query_positions(query, key, mask, decode) if needs_positions or is_causal else None,
        }
        if module is not None:
            undropped: dict[str, Any] = {**options, "dropout": None}
            _sow(module, attention_weights_heads(query, key, value, **undropped))
        return attend_heads(query, key, value, **options)

    return attention_fn


def _query_positions(query: Any, key: Any, mask: Any, decode: bool | None) -> Any:
    """None for 0 … T-1; in cached decoding the last slot that Flax's mask allows, `[*batch, 1]`."""
    if decode is False or not query.shape[-3] == 1 < key.shape[-3]:
        return None
    fail_unless(
        decode is not None,
        f"decode: expected True or False where one query meets {key.shape[-3]} keys and the rule has a mask or mods, "
        "got None. flax_attention_fn(..., decode=True) if Flax decodes with its cache, decode=False if the query "
        "is at position 0.",
    )
    fail_unless(mask is not None, "mask: expected Flax's mask of the filled slots, as decode=True, got None.")
    slots = jnp.where(jnp.asarray(mask) != 0, jnp.arange(key.shape[-3]), -1)
    return jnp.max(slots, axis=(-3, -1))


def _refuse(**arguments: Callable | None) -> None:
    for name, x in arguments.items():
        fail_unless(x is None, f"{name}: expected None, got {x!r}. Write the product into a score instead.")


def _bias(bias: Any) -> Mod:
    return mods.bias(bias)


def _combine_masks(rule_mask: Mask | Callable | None, flax_mask: Any, is_causal: bool) -> Mask | None:
    """The rule's mask, Flax's array (nonzero = may attend) and causality, combined by &."""
    terms = [] if rule_mask is None else [masks.as_mask(rule_mask)]
    if flax_mask is not None:
        flax_mask = jnp.asarray(flax_mask)
        fail_unless(
            flax_mask.ndim >= 3,
            f"mask: expected [..., N, T, S] (sizes of 1 broadcast), got {describe_array(flax_mask)}. "
            "A [B, S] padding mask is mask[:, None, None, :].",
        )
        terms.append(masks.dense(flax_mask != 0))
    if is_causal:
        terms.append(masks.causal())
    return functools.reduce(operator.and_, terms) if terms else None


def _dropout(rng: Any, rate: float, shared: bool, deterministic: bool) -> Dropout | None:
    if deterministic or rate == 0:
        return None
    fail_unless(
        rng is not None, f"dropout_rng: expected a key, as dropout_rate = {rate} and not deterministic, got None."
    )
    return Dropout(getattr(rng, "value", rng), rate, shared)


def _sow(module: Any, weights: Any) -> None:
    """Linen sows into a collection named by a string, NNX into a Variable type; each under `attention_weights`."""
    if hasattr(module, "scope"):
        module.sow("intermediates", "attention_weights", weights)
        return
    from flax import nnx

    module.sow(nnx.Intermediate, "attention_weights", weights)
