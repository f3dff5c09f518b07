"""The blocks of a Transformer over vectors: the part of a language model between its embedding and its head."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import masks, mods
from jax_attention.cache import filled
from jax_attention.core.checks import (
    broadcasts,
    check_instance,
    check_int,
    check_positions,
    describe_array,
    fail_unless,
)
from jax_attention.core.sizes import exceeds
from jax_attention.models.block import INITIAL_DEVIATION, LayerInputs, make_norm
from jax_attention.models.blocks import Blocks, make_blocks, make_cache, restack
from jax_attention.models.config import LMConfig, model_dtype
from jax_attention.models.results import Capture, LMCache, Memory, StackOutput
from jax_attention.nn.listing import unlisted
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


class TransformerStack(ShortRepr, nnx.Module):
    """A Transformer over vectors, without embedding and head.

        y = norm(blocks(x)),        [..., T, D] -> [..., T, D]

    Args:
        config: sizes, layout and the attention rule; fields about tokens, added positions and the head are ignored.
        rngs: random keys, used here and not kept.

    Returns:
        A module: `stack(x)`, or `stack(x, states)` with cross-attention, gives vectors `[..., T, D]`. `stack.read` is
        the same call with a cache or captured arrays; `stack.project_memory(states)` makes the memory of a source once
        for many calls.

    Raises:
        ValueError: by the call, if shapes do not fit, or a memory is missing or not expected.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import masks, models
        >>> config = models.LMConfig(vocab_size=1, width=8, depth=2, num_heads=2, mask=None, position="none")
        >>> stack = models.TransformerStack(config, rngs=nnx.Rngs(0))
        >>> stack(jnp.ones((3, 5, 8)), mask=masks.causal()).shape
        (3, 5, 8)

    Reference:
        Vaswani et al. (2017), "Attention is all you need", section 3.1.
    """

    def __init__(self, config: LMConfig, *, rngs: nnx.Rngs):
        check_instance("config", config, LMConfig, "models.LMConfig(...)")
        normal = jax.nn.initializers.normal(INITIAL_DEVIATION)
        shape = (config.num_heads, config.t5_buckets)
        self.relative = (
            nnx.Param(normal(rngs.params(), shape, jnp.dtype(config.param_dtype))) if config.position == "t5" else None
        )
        self.blocks = make_blocks(config, rngs.params())
        self.final_norm = make_norm(config, rngs) if config.has_final_norm else None
        self.config = config

    def __call__(
        self,
        x: Float[Array, "*batch T D"],
        memory: Memory | Float[Array, "*#batch S M"] | None = None,
        *,
        positions: Int[Array, "*#batch T"] | None = None,
        segment_ids: Int[Array, "*#batch T"] | None = None,
        mask: Any = None,
        mods: tuple = (),
        memory_mask: Any = None,
        memory_mods: tuple = (),
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "*batch T D"]:
        """The vectors after the last block and its norm, `[..., T, D]`.

        memory: for cross-attention, from `project_memory`, or the states `[..., S, M]` of the source themselves.
        mask, mods: for self-attention in every layer. The mask is combined with the config's by &; the mods precede
            those of the config.
        memory_mask, memory_mods: the same for cross-attention, `[..., T, S]`. Padding of the source is hidden as well.
        The other arguments are those of `TransformerLM`.
        """
        if memory is not None and not isinstance(memory, Memory) and self.config.memory_size is not None:
            memory = self.project_memory(memory)
        return self.read(
            x,
            positions=positions,
            segment_ids=segment_ids,
            mask=mask,
            mods=mods,
            memory=memory,
            memory_mask=memory_mask,
            memory_mods=memory_mods,
            rng=rng,
        ).hidden

    def read(
        self,
        x: Float[Array, "*batch T D"],
        *,
        positions: Int[Array, "*#batch T"] | None = None,
        segment_ids: Int[Array, "*#batch T"] | None = None,
        mask: Any = None,
        mods: tuple = (),
        cache: LMCache | None = None,
        memory: Memory | None = None,
        memory_mask: Any = None,
        memory_mods: tuple = (),
        rng: PRNGKeyArray | None = None,
        capture: Capture | None = None,
    ) -> StackOutput:
        """The same call with a cache and a choice of arrays to capture: vectors, the new cache, the captured arrays."""
        x, capture = jnp.asarray(x), _check_capture(capture)
        fail_unless(
            x.ndim > 1 and x.shape[-1] == self.config.width,
            f"x: expected vectors [..., T, {self.config.width}], got {describe_array(x)}.",
        )
        if segment_ids is not None:
            check_positions("segment_ids", segment_ids, x.shape[-2], x.shape[:-2])
        _check_memory(memory, self.config, self.blocks, x)
        fail_unless(
            memory is not None or (memory_mask is None and not _as_tuple(memory_mods)),
            "memory_mask: expected None without a memory, got a mask or mods for it. Pass mask= and mods= for "
            "self-attention.",
        )
        if cache is not None:
            check_cache(cache, self.config, self.blocks, x.shape[:-1], segment_ids, rng)
            positions = cache.next_positions(x.shape[-2]) if positions is None else positions
        if positions is not None:
            positions = check_positions("positions", positions, x.shape[-2], x.shape[:-2])
        call_masks = [] if mask is None else [masks.as_mask(mask)]
        if segment_ids is not None:
            call_masks.append(masks.segments(jnp.broadcast_to(segment_ids, x.shape[:-1])[..., None, :]))
        # A causal mask hides padding by itself; not every mask does. With a cache the layers do the same.
        call_masks += [filled()] if positions is not None and cache is None else []
        shared_mods = (*unlisted(self.shared_mods)(), *_as_tuple(mods))
        inputs = LayerInputs(positions, _intersection(call_masks), shared_mods, memory_mask, _as_tuple(memory_mods))
        run, dtype = unlisted(self.blocks.__call__), model_dtype(self.config)
        x, cache, captured = run(x.astype(dtype), inputs, cache, memory, rng, capture, self.config)
        return StackOutput(x if self.final_norm is None else self.final_norm(x), cache, captured)

    def project_memory(
        self, states: Float[Array, "*batch S M"], positions: Int[Array, "*#batch S"] | None = None
    ) -> Memory:
        """Keys and values of a source for the cross-attention of every layer: the `memory` of later calls.

        positions: rows at `cache.EMPTY` are padding, which no query attends to; None is no padding.
        """
        size = self.config.memory_size
        fail_unless(
            size is not None,
            "memory_size: expected a model with cross-attention, got None. Make it by LMConfig(memory_size=...).",
        )
        states = jnp.asarray(states)
        fail_unless(
            states.ndim > 1 and states.shape[-1] == size,
            f"states: expected a memory [..., S, memory_size = {size}], got {describe_array(states)}.",
        )
        if positions is not None:
            positions = check_positions("positions", positions, states.shape[-2], states.shape[:-2])
            positions = jnp.broadcast_to(positions, states.shape[:-1])
        return unlisted(self.blocks.project_memory)(states.astype(model_dtype(self.config)), positions)

    def init_cache(
        self,
        batch: tuple[int, ...] = (),
        capacity: int | None = None,
        *,
        dtype: Any = None,
        ring_chunk: int | None = None,
    ) -> LMCache:
        """An empty cache for sequences `[*batch, T]`.

        capacity: number of rows it can hold; the config's context if None.
        dtype: dtype of keys and values; the config's dtype if None.
        ring_chunk: layers with a window keep only `window + ring_chunk - 1` rows, in a ring; then at most `ring_chunk`
            tokens may be appended at once.
        """
        capacity = self.config.context if capacity is None else check_int("capacity", capacity, 1, "It is static.")
        if ring_chunk is not None:
            check_int("ring_chunk", ring_chunk, 1, "It is the largest number of tokens appended at once.")
        return make_cache(
            self.config, batch, capacity, model_dtype(self.config) if dtype is None else dtype, ring_chunk
        )

    def with_scan(self, scan: bool) -> TransformerStack:
        """The same stack with its blocks stacked for `lax.scan`, or one after the other."""
        copy = jax.tree.map(lambda x: x, self)
        copy.config = dataclasses.replace(self.config, scan=scan)
        copy.blocks = restack(self.blocks.layers(), copy.config)
        return copy

    def shared_mods(self) -> tuple:
        """Mods that all layers share: T5's table of relative positions, if there is one."""
        if self.relative is None:
            return ()
        both, distance = self.config.sees_future(), self.config.t5_max_distance
        return (mods.relative(self.relative[...], bidirectional=both, max_distance=distance),)


class TransformerLayer(TransformerStack):
    """A single block, as `torch.nn.TransformerEncoderLayer` and `TransformerDecoderLayer` are.

        y = x + attend(norm(x)), then y + feed_forward(norm(y));  norms are where the config says

    Args:
        config: with `depth=1` and `final_norm=False`.
        rngs: random keys, used here and not kept.

    Returns:
        A `TransformerStack` of one block.

    Raises:
        ValueError: if the config has more blocks, or a norm after the last.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import models
        >>> config = models.LMConfig(vocab_size=1, width=8, depth=1, num_heads=2, final_norm=False, mask=None)
        >>> models.TransformerLayer(config, rngs=nnx.Rngs(0))(jnp.ones((5, 8))).shape
        (5, 8)
    """

    def __init__(self, config: LMConfig, *, rngs: nnx.Rngs):
        check_instance("config", config, LMConfig, "models.LMConfig(...)")
        fail_unless(
            config.depth == 1, f"depth: expected 1 for a single layer, got {config.depth}. Use models.TransformerStack."
        )
        fail_unless(
            not config.has_final_norm,
            "final_norm: expected False for a single layer, got a norm after the last block. Use "
            "models.TransformerStack.",
        )
        super().__init__(config, rngs=rngs)


class StackView(TransformerStack):
    """A stack made of the blocks, the norm and the table of another module, without parameters of its own.

    `TransformerLM` computes with such a stack but holds its parameters directly: in a stored stack their paths would
    begin with `stack.`, and checkpoints and adapters of earlier versions could not be read.
    """

    def __init__(self, config: LMConfig, relative: nnx.Param | None, blocks: Blocks, final_norm: nnx.Module | None):
        self.config, self.relative, self.blocks, self.final_norm = config, relative, blocks, final_norm


def check_cache(
    cache: Any, config: LMConfig, blocks: Blocks, shape: tuple[int, ...], segment_ids: Any, rng: Any
) -> None:
    """Refuse a cache that does not fit the blocks or has no room for tokens of this shape, and options it excludes."""
    fail_unless(
        segment_ids is None,
        "segment_ids: expected None with a cache, whose rows carry no segments. Use one cache row per document.",
    )
    rate = config.attention_dropout
    fail_unless(
        rng is None or rate == 0,
        f"rng: expected None with a cache, as no weight is dropped there, got attention_dropout = {rate}. Leave rng "
        "out.",
    )
    layout = (len(blocks.scanned), len(blocks.rest))
    got = (len(cache.scanned), len(cache.rest)) if isinstance(cache, LMCache) else cache
    fail_unless(
        got == layout,
        f"cache: expected a models.LMCache of {layout[0]} stacked and {layout[1]} single layers, got {got}. Make it "
        "with init_cache of the model that reads it; scanned and unrolled models have different ones.",
    )
    batch, count = cache.positions.shape[:-1], shape[-1]
    fail_unless(
        batch == shape[:-1],
        f"tokens: expected batch dimensions {batch} as in the cache, got {shape[:-1]}. Make the cache by "
        f"init_cache(batch={shape[:-1]}).",
    )
    # A traced length is unknown: there the rows that do not fit are written as NaN.
    length = 0 if isinstance(cache.length, jax.core.Tracer) else int(cache.length)
    fail_unless(
        cache.capacity is None or not exceeds(length + count, cache.capacity),
        f"tokens: expected at most {cache.capacity} rows in the cache, which holds {length}, got {count} more. Make it "
        "larger: init_cache(capacity=).",
    )


def _check_memory(memory: Any, config: LMConfig, blocks: Blocks, x: jax.Array) -> None:
    if config.memory_size is None:
        fail_unless(memory is None, "memory: expected None, as memory_size of the config is None, got a memory.")
        return
    cure = "Make it by model.project_memory(states)."
    check_instance("memory", memory, Memory, "models.Memory", cure)
    layout = (len(blocks.scanned), len(blocks.rest))
    got = (len(memory.scanned), len(memory.rest))
    fail_unless(
        got == layout,
        f"memory: expected {layout[0]} stacked and {layout[1]} single layers, got {got[0]} and {got[1]}. {cure}",
    )
    batch = memory.batch_shape
    fail_unless(
        broadcasts(batch, x.shape[:-2]),
        f"memory: expected batch dimensions that broadcast to those of the target, {x.shape[:-2]}, got {batch}. Give "
        "one target, or prompt, for each source.",
    )


def _as_tuple(mods: Any) -> tuple:
    """The mods of a call, where one alone may stand for itself."""
    return tuple(mods) if isinstance(mods, (tuple, list)) else (mods,)


def _intersection(call_masks: list) -> Any:
    """The masks combined by &; None for no masks."""
    mask = None
    for part in call_masks:
        mask = part if mask is None else mask & part
    return mask


def _check_capture(capture: Any) -> Capture:
    capture = Capture() if capture is None else capture
    fail_unless(
        isinstance(capture, Capture),
        f"capture: expected models.Capture(weights=, hidden=) or None, got {capture!r}.",
        TypeError,
    )
    return capture
