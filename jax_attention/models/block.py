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
from jax_attention.dropout import Dropout
from jax_attention.models.config import LMConfig, model_dtype
from jax_attention.nn import FeedForward, LearnedPart, MultiHeadAttention
from jax_attention.nn.freeze import freeze, unfreeze
from jax_attention.nn.norms import LayerNorm, RMSNorm
from jax_attention.normalizers import softmax
from jax_attention.positions import Rotary

INITIAL_DEVIATION = 0.02


class LayerInputs(NamedTuple):
    """What all layers of one call have in common."""

    positions: jax.Array | None
    mask: Any
    mods: tuple


class CaptureRequest(NamedTuple):
    """Which maps of a block are wanted."""

    weights: bool
    cross: bool


class Block(nnx.Module):
    """`x + attention(norm(x))`, then `x + feed_forward(norm(x))`; norms stand where the config says. Where there is a
    memory, `x + cross(norm(x), memory)` stands between the two.
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
            head_norm=partial(_head_norm, config, rngs) if config.qk_norm else None,
            norm_all_heads=config.qk_norm == "joined",
            **options,
        )
        rule = rule_of_layer(config, window)
        self.attention = MultiHeadAttention(packed=True, rope=rope_of_layer(config, window), **heads, **rule)
        # Not in the attention layer, whose own mods precede those of a call: T5's table, given by a call, comes first.
        self.mods = nnx.List([freeze(mod) for mod in mods_of_layer(config)])
        self.feed_forward = FeedForward(
            config.width,
            config.resolved_ff_size,
            activation=config.activation,
            use_bias=config.has_bias("feed_forward"),
            **options,
        )
        first, after = config.norm_place != "after", config.norm_place in ("sandwich", "after")
        norm = lambda wanted: make_norm(config, rngs) if wanted else None  # noqa: E731
        self.attention_norm, self.feed_forward_norm = norm(first), norm(first)
        self.attention_after, self.feed_forward_after = norm(after), norm(after)
        crosses = config.memory_size is not None
        self.cross_norm, self.cross_after = norm(first and crosses), norm(after and crosses)
        cross_rule = rule_of_layer(config, window) | {"mask": None, "mods": cap_of(config)}
        self.cross = MultiHeadAttention(key_size=config.memory_size, **heads, **cross_rule) if crosses else None
        self.place, self.dropout, self.attention_dropout = config.norm_place, config.dropout, config.attention_dropout

    def __call__(
        self,
        x: jax.Array,
        shared: LayerInputs,
        cache: KVCache | None,
        memory: KVCache | None,
        rng: jax.Array | None,
        wanted: CaptureRequest,
    ) -> tuple[jax.Array, KVCache | None, tuple[jax.Array | None, jax.Array | None]]:
        """The stream after the block, the new cache, and the wanted maps over the sequence and over the memory."""
        count = 3 if self.cross is None else 5
        rngs = (None,) * count if rng is None else tuple(jax.random.split(rng, count))
        maps: list[jax.Array | None] = [None, None]

        def attend(x: jax.Array) -> jax.Array:
            nonlocal cache
            own = tuple(unfreeze(mod) for mod in self.mods)
            options: dict[str, Any] = {"mask": shared.mask, "mods": (*shared.mods, *own)}
            layer, before = self.attention, cache
            if before is not None:
                options["positions"] = shared.positions
                out, cache = layer.step(x, before, **options)
                maps[0] = layer.step_weights(x, before, **options) if wanted.weights else None
                return out
            options |= {"query_positions": shared.positions} | self._dropped(rngs[0])
            maps[0] = layer.weights(x, **options) if wanted.weights else None
            return layer(x, **options)

        def recall(x: jax.Array) -> jax.Array:
            maps[1] = self.cross.cross_attention_weights(x, memory, **self._dropped(rngs[3])) if wanted.cross else None
            return self.cross.cross_attend(x, memory, **self._dropped(rngs[3]))

        y = self._add(x, x, attend, self.attention_norm, self.attention_after, rngs[1])
        if self.cross is not None:
            y = self._add(y, y, recall, self.cross_norm, self.cross_after, rngs[4])
        seen = x if self.place == "parallel" else y
        y = self._add(y, seen, self.feed_forward, self.feed_forward_norm, self.feed_forward_after, rngs[2])
        return y, cache, tuple(maps)

    def _dropped(self, rng: jax.Array | None) -> dict[str, Any]:
        """Dropout of attention weights, where there is some."""
        return {"dropout": Dropout(rng, self.attention_dropout)} if rng is not None and self.attention_dropout else {}

    def _add(self, x: jax.Array, seen: jax.Array, sublayer: Callable, norm: Any, after: Any, rng: Any) -> jax.Array:
        """The stream x with what the sublayer makes of `seen`, the same stream except where halves are parallel."""
        if self.place == "post":
            return norm(x + drop(sublayer(seen), self.dropout, rng))
        y = sublayer(seen if norm is None else norm(seen))
        return x + drop(y if after is None else after(y), self.dropout, rng)


def make_block(config: LMConfig, window: int | None, rng: jax.Array) -> Block:
    """A block with GPT-2's initial values: normal(0.02), smaller by sqrt(2 depth) where the residual stream is fed."""
    block = Block(config, window, rngs=nnx.Rngs(rng))
    paths, structure = jax.tree_util.tree_flatten_with_path(block)
    fresh, kernels = [], 0
    for path, x in paths:
        names = [getattr(entry, "name", None) for entry in path]
        if "kernel" in names and "mods" not in names and "rule" not in names:
            feeds_stream = "out" in names or "down" in names
            deviation = INITIAL_DEVIATION * ((2 * config.depth) ** -0.5 if feeds_stream else 1.0)
            # Numbered among the kernels alone: another rule starts from the same numbers.
            x = deviation * jax.random.normal(jax.random.fold_in(rng, kernels), x.shape, x.dtype)
            kernels += 1
        fresh.append(x)
    return jax.tree.unflatten(structure, fresh)


def rope_of_layer(config: LMConfig, window: int | None) -> Rotary | None:
    """The rotary embedding of a layer, if there is one."""
    if config.position != "rotary":
        return None
    return config.rope if window is None or config.local_rope is None else config.local_rope


def rule_of_layer(config: LMConfig, window: int | None) -> dict[str, Any]:
    """The attention rule of a layer except for its mods: the config's own, and its window."""
    mask = config.mask
    if window is not None:
        mask = masks.sliding_window(window) if mask is None else masks.as_mask(mask) & masks.sliding_window(window)
    normalize = config.normalize
    if config.sinks:
        normalize = LearnedPart(softmax(jnp.zeros(config.num_heads, config.param_dtype)))
    elif config.train_rule:
        normalize = trained(normalize, config.param_dtype)
    score = trained(config.score, config.param_dtype) if config.train_rule else config.score
    return {"score": score, "mask": mask, "normalize": normalize}


def mods_of_layer(config: LMConfig) -> tuple:
    """Position mods, the config's own mods, the cap, in this order."""
    place: tuple = ()
    if config.position == "alibi":
        with jax.ensure_compile_time_eval():
            place = (mods.alibi(positions.alibi_slopes(config.num_heads)),)
    own = tuple(trained(mod, config.param_dtype) for mod in config.mods) if config.train_rule else config.mods
    return (*place, *own, *cap_of(config))


def cap_of(config: LMConfig) -> tuple:
    """The cap on scores, a mod."""
    return () if config.score_cap is None else (mods.soft_cap(config.score_cap),)


def trained(part: Any, dtype: str) -> Any:
    """The part with its floats as parameters of this dtype, or as it is where it has none."""
    is_float = lambda x: not callable(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating)  # noqa: E731
    if not any(is_float(x) for x in jax.tree.leaves(part)):
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


def _head_norm(config: LMConfig, rngs: nnx.Rngs, size: int) -> nnx.Module:
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
    """Rows of a table. Negative numbers do not count from the end: like those beyond the table they become NaN."""
    inside = jnp.where(jnp.asarray(index) < 0, table.shape[0], index)
    return jnp.take(table[...].astype(dtype), inside, axis=0, mode="fill")


def fold(rng: jax.Array | None, data: int) -> jax.Array | None:
    """The key of one use of many; None stays None."""
    return None if rng is None else jax.random.fold_in(rng, data)
