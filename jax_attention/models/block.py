"""One Transformer block: attention and feed-forward, each added to the residual stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import masks, mods, positions
from jax_attention.cache import KVCache
from jax_attention.core.explicit_axes import take_rows
from jax_attention.core.short_repr import short_repr
from jax_attention.dropout import Dropout
from jax_attention.models.config import LMConfig, model_dtype
from jax_attention.models.config_checks import is_part_module
from jax_attention.nn import FeedForward, LearnedPart, MultiHeadAttention
from jax_attention.nn.freeze import freeze, unfreeze
from jax_attention.nn.listing import unlisted
from jax_attention.nn.norms import LayerNorm, RMSNorm
from jax_attention.nn.short_repr import ShortRepr
from jax_attention.normalizers import softmax
from jax_attention.positions import Rotary

INITIAL_DEVIATION = 0.02
"""Standard deviation of initial kernels and tables (GPT-2)."""


@short_repr
class LayerInputs(NamedTuple):
    """Positions, mask and mods of one call, the same in all layers; the last two for cross-attention."""

    positions: jax.Array | None
    mask: Any
    mods: tuple
    memory_mask: Any = None
    memory_mods: tuple = ()

    def scaled(self, layer: jax.Array | int) -> LayerInputs:
        """The inputs of this layer in a model with `scale_by_layer`."""
        count = layer + 1.0 if isinstance(layer, int) else jnp.asarray(layer + 1, jnp.float32)
        scale = mods.temperature(count)
        return self._replace(mods=(scale, *self.mods), memory_mods=(scale, *self.memory_mods))


class CaptureRequest(NamedTuple):
    """Which attention weights one block returns: over the sequence, and over the memory (cross-attention)."""

    weights: bool
    cross: bool


class Block(ShortRepr, nnx.Module):
    """`x + attention(norm(x))`, then `x + feed_forward(norm(x))`; norms are where the config says.

    In a model with a memory, `x + cross(norm(x), memory)` comes between the two.
    """

    def __init__(self, config: LMConfig, window: int | None, *, rngs: nnx.Rngs):
        options = dict(dtype=model_dtype(config), param_dtype=jnp.dtype(config.param_dtype), rngs=rngs)
        heads = dict(
            num_heads=config.num_heads,
            size=config.width,
            kv_heads=config.kv_heads,
            head_size=config.head_size,
            use_bias=config.has_bias("qkv"),
            out_bias=config.has_bias("out"),
            head_norm=partial(_make_head_norm, config, rngs) if config.qk_norm else None,
            norm_all_heads=config.qk_norm == "all_heads",
            **options,
        )
        rule = layer_rule(config, window, rngs)
        self.attention = MultiHeadAttention(packed=True, rope=layer_rope(config, window), **heads, **rule)
        # Not in the attention layer, whose mods precede those of a call: T5's table, a mod of the call, comes first.
        self.mods = nnx.List([freeze(mod) for mod in layer_mods(config, rngs)])
        self.feed_forward = FeedForward(
            config.width,
            config.resolved_ff_size,
            activation=config.activation,
            use_bias=config.has_bias("feed_forward"),
            **options,
        )
        has_norm, has_norm_after = config.norm_place != "after", config.norm_place in ("sandwich", "after")
        has_cross = config.memory_size is not None
        norm = partial(_make_norm_if, config, rngs)
        self.attention_norm, self.feed_forward_norm = norm(has_norm), norm(has_norm)
        self.attention_after, self.feed_forward_after = norm(has_norm_after), norm(has_norm_after)
        self.cross_norm, self.cross_after = norm(has_norm and has_cross), norm(has_norm_after and has_cross)
        # Made anew: learned parts of the two attentions are separate parameters.
        cross_rule = layer_rule(config, window, rngs) | {"mask": None, "mods": score_cap_mods(config)}
        self.cross = MultiHeadAttention(key_size=config.memory_size, **heads, **cross_rule) if has_cross else None
        self.place, self.dropout, self.attention_dropout = config.norm_place, config.dropout, config.attention_dropout

    def __call__(
        self,
        x: jax.Array,
        inputs: LayerInputs,
        cache: KVCache | None,
        memory: KVCache | None,
        rng: jax.Array | None,
        request: CaptureRequest,
    ) -> tuple[jax.Array, KVCache | None, tuple[jax.Array | None, jax.Array | None]]:
        """The residual stream after the block, the new cache, and the requested weights over sequence and memory."""
        count = 3 if self.cross is None else 5
        rngs = (None,) * count if rng is None else tuple(jax.random.split(rng, count))
        weights: list[jax.Array | None] = [None, None]

        def attend(x: jax.Array) -> jax.Array:
            nonlocal cache
            rows = x if cache is None else None
            mods = (*inputs.mods, *(unfreeze(mod, rows) for mod in self.mods))
            options: dict[str, Any] = {"mask": inputs.mask, "mods": mods}
            if cache is not None:
                options["positions"] = inputs.positions
                old_cache = cache
                out, cache = unlisted(self.attention.step)(x, old_cache, **options)
                weights[0] = self.attention.step_weights(x, old_cache, **options) if request.weights else None
                return out
            options |= {"query_positions": inputs.positions} | self._weight_dropout(rngs[0])
            weights[0] = self.attention.weights(x, **options) if request.weights else None
            return unlisted(self.attention.__call__)(x, **options)

        def cross_attend(x: jax.Array) -> jax.Array:
            options = {"mask": inputs.memory_mask, "mods": inputs.memory_mods} | self._weight_dropout(rngs[3])
            if inputs.memory_mask is not None or inputs.memory_mods:  # nothing else there sees positions
                options["query_positions"] = inputs.positions
            weights[1] = self.cross.cross_attention_weights(x, memory, **options) if request.cross else None
            return unlisted(self.cross.cross_attend)(x, memory, **options)

        y = self._add(x, x, attend, self.attention_norm, self.attention_after, rngs[1])
        if self.cross is not None:
            y = self._add(y, y, cross_attend, self.cross_norm, self.cross_after, rngs[4])
        source = x if self.place == "parallel" else y
        y = self._add(y, source, self.feed_forward, self.feed_forward_norm, self.feed_forward_after, rngs[2])
        return y, cache, tuple(weights)

    def _weight_dropout(self, rng: jax.Array | None) -> dict[str, Any]:
        """The dropout option of an attention layer, where the config has one and the call an rng."""
        return {"dropout": Dropout(rng, self.attention_dropout)} if rng is not None and self.attention_dropout else {}

    def _add(
        self, x: jax.Array, source: jax.Array, sublayer: Callable, norm_before: Any, norm_after: Any, rng: Any
    ) -> jax.Array:
        """`x + sublayer(source)` with dropout and norms; source is x unless the sublayers are parallel."""
        if self.place == "post":
            return norm_before(x + drop(sublayer(source), self.dropout, rng))
        y = sublayer(source if norm_before is None else norm_before(source))
        return x + drop(y if norm_after is None else norm_after(y), self.dropout, rng)


def make_block(config: LMConfig, window: int | None, rng: jax.Array) -> Block:
    """A block with GPT-2's initial values: normal(0.02), divided by sqrt(2 depth) in layers that feed the residual."""
    block = Block(config, window, rngs=nnx.Rngs(rng))
    paths, structure = jax.tree_util.tree_flatten_with_path(block)
    arrays, kernels = [], 0
    for path, x in paths:
        names = [entry.name for entry in path if isinstance(entry, jax.tree_util.GetAttrKey)]
        if "kernel" in names and "mods" not in names and "rule" not in names:
            feeds_residual = "out" in names or "down" in names
            deviation = INITIAL_DEVIATION * ((2 * config.depth) ** -0.5 if feeds_residual else 1.0)
            # Random keys are numbered by kernel, not by parameter: other rules then start from the same kernels.
            x = deviation * jax.random.normal(jax.random.fold_in(rng, kernels), x.shape, x.dtype)
            kernels += 1
        arrays.append(x)
    return jax.tree.unflatten(structure, arrays)


def layer_rope(config: LMConfig, window: int | None) -> Rotary | None:
    """The rotary embedding of a layer with this window, or None."""
    if config.position != "rotary":
        return None
    return config.rope if window is None or config.local_rope is None else config.local_rope


def layer_rule(config: LMConfig, window: int | None, rngs: nnx.Rngs) -> dict[str, Any]:
    """Score, mask and normalizer of a layer: those of the config, the mask restricted to the window."""
    mask = config.mask
    if window is not None:
        mask = masks.sliding_window(window) if mask is None else masks.as_mask(mask) & masks.sliding_window(window)
    normalize = config.normalize
    if config.sinks:
        normalize = LearnedPart(softmax(jnp.zeros(config.num_heads, config.param_dtype)))
    elif config.train_rule:
        normalize = learned_if_floating(normalize, config.param_dtype)
    score = learned_if_floating(config.score, config.param_dtype) if config.train_rule else config.score
    made = {name: make_part(part, config, rngs) for name, part in (("score", score), ("normalize", normalize))}
    return {"mask": mask, **made}


def make_part(part: Any, config: LMConfig, rngs: nnx.Rngs) -> Any:
    """A part of the config as the layer stores it: a class of modules becomes the module of this layer."""
    return part.for_layer(config, rngs=rngs) if is_part_module(part) else part


def layer_mods(config: LMConfig, rngs: nnx.Rngs) -> tuple:
    """Mods of a layer: the position scheme's, the config's, the cap on scores, in this order."""
    position_mods: tuple = ()
    if config.position == "alibi":
        # Slopes are constants of the layer, so they must be known numbers also while `create` is traced.
        with jax.ensure_compile_time_eval():
            position_mods = (mods.alibi(positions.alibi_slopes(config.num_heads)),)
    config_mods = config.mods
    if config.train_rule:
        config_mods = tuple(learned_if_floating(mod, config.param_dtype) for mod in config.mods)
    made = (make_part(mod, config, rngs) for mod in config_mods)
    return (*position_mods, *made, *score_cap_mods(config))


def score_cap_mods(config: LMConfig) -> tuple:
    """The soft cap on scores as a tuple of mods, empty without a cap."""
    return () if config.score_cap is None else (mods.soft_cap(config.score_cap),)


def learned_if_floating(part: Any, dtype: str) -> Any:
    """The part with its floats as parameters of this dtype, or the part itself where it has no floats."""

    def is_float(x: Any) -> bool:
        return not callable(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating)

    if is_part_module(part) or not any(is_float(x) for x in jax.tree.leaves(part)):
        return part
    return LearnedPart(jax.tree.map(lambda x: jnp.asarray(x, dtype) if is_float(x) else x, part))


def make_norm(config: LMConfig, rngs: nnx.Rngs) -> nnx.Module:
    """The config's norm over D features."""
    options = dict(
        epsilon=config.norm_epsilon, dtype=model_dtype(config), param_dtype=jnp.dtype(config.param_dtype), rngs=rngs
    )
    if config.norm == "rms":
        return RMSNorm(config.width, **options)
    return LayerNorm(config.width, use_bias=config.has_bias("norm"), **options)


def _make_norm_if(config: LMConfig, rngs: nnx.Rngs, condition: bool) -> nnx.Module | None:
    return make_norm(config, rngs) if condition else None


def _make_head_norm(config: LMConfig, rngs: nnx.Rngs, size: int) -> nnx.Module:
    return RMSNorm(
        size,
        epsilon=config.norm_epsilon,
        dtype=model_dtype(config),
        param_dtype=jnp.dtype(config.param_dtype),
        rngs=rngs,
    )


def drop(x: jax.Array, rate: float, rng: jax.Array | None) -> jax.Array:
    """Dropout of single features; none without an rng."""
    if rng is None or rate == 0:
        return x
    keep = jax.random.bernoulli(rng, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), jnp.zeros((), x.dtype))


def table_rows(table: nnx.Param, index: Any, dtype: jnp.dtype) -> jax.Array:
    """Rows of a table; NaN for an index outside of it.

    Negative indices do not count from the end: -100, the mark of an ignored target, would silently be a token.
    """
    index = jnp.where(jnp.asarray(index) < 0, table.shape[0], index)
    return take_rows(table[...].astype(dtype), index)


def fold(rng: jax.Array | None, data: int) -> jax.Array | None:
    """`jax.random.fold_in`, where None (no dropout) stays None."""
    return None if rng is None else jax.random.fold_in(rng, data)
