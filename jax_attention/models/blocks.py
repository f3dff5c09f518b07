"""The depth of a model: blocks one after the other, or stacked and run by `lax.scan`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import cache as kv_cache
from jax_attention.models.block import Block, CaptureRequest, LayerInputs, make_block
from jax_attention.models.config import LMConfig
from jax_attention.models.results import EMBEDDING, Capture, CaptureResult, LMCache, Memory

POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Blocks(nnx.Module):
    """`depth` blocks. Layer `g P + i` of the scanned part is entry g of `scanned[i]`, where P is the window pattern's
    length; layers that do not fill a whole pattern, or all of them when nothing is scanned, stand in `rest`.
    """

    def __init__(self, scanned: list[Block], rest: list[Block]):
        self.scanned, self.rest = nnx.List(scanned), nnx.List(rest)

    @property
    def repeats(self) -> int:
        """How many times the scan goes round."""
        return jax.tree.leaves(self.scanned[0])[0].shape[0] if len(self.scanned) else 0

    def __call__(
        self,
        x: jax.Array,
        shared: LayerInputs,
        cache: LMCache | None,
        memory: Memory | None,
        rng: jax.Array | None,
        capture: Capture,
        remat: str,
    ) -> tuple[jax.Array, LMCache | None, CaptureResult]:
        """Through all layers: the stream, the new cache, and what was asked for."""
        asked = capture.layers(len(self.scanned) * self.repeats + len(self.rest))
        run = partial(_run, shared, rng, remat)
        first, last = (
            tuple(None if held is None else getattr(held, part) for held in (cache, memory))
            for part in ("scanned", "rest")
        )
        found = CaptureResult({}, {EMBEDDING: x}, {})
        x, first, kept = self._scan(run, x, *first, asked)
        x, last, more = self._unroll(run, x, *last, asked)
        found = [a | b | c for a, b, c in zip(found, kept, more, strict=True)]
        new = None if cache is None else LMCache(first, last)
        return x, new, CaptureResult(*({n: have[n] for n in layers} for have, layers in zip(found, asked, strict=True)))

    def _scan(
        self, run: Callable, x: jax.Array, caches: Any, memories: Any, asked: tuple
    ) -> tuple[jax.Array, tuple, CaptureResult]:
        """Through the stacked blocks, one round of the window pattern after the other."""
        period, repeats = len(self.scanned), self.repeats
        if not period:
            return x, (), CaptureResult({}, {}, {})
        asked = tuple([n for n in layers if 0 <= n < period * repeats] for layers in asked)

        def round_trip(x: jax.Array, entry: Any) -> Any:
            blocks, caches, memories, g = entry
            new, kept = [], []
            for i, block in enumerate(blocks):
                weights, hidden, cross = (any(n % period == i for n in layers) for layers in asked)
                own = tuple(None if held is None else held[i] for held in (caches, memories))
                x, cache, maps = run(block, x, *own, g * period + i, CaptureRequest(weights, cross), prevent_cse=False)
                new.append(cache)
                kept.append((maps[0], x if hidden else None, maps[1]))
            return x, (tuple(new), tuple(kept))

        x, (new, kept) = jax.lax.scan(round_trip, x, (tuple(self.scanned), caches, memories, jnp.arange(repeats)))
        found = ({n: kept[n % period][what][n // period] for n in layers} for what, layers in enumerate(asked))
        return x, new, CaptureResult(*found)

    def _unroll(
        self, run: Callable, x: jax.Array, caches: Any, memories: Any, asked: tuple
    ) -> tuple[jax.Array, tuple, CaptureResult]:
        """Through the blocks that stand alone."""
        new, kept, before = [], CaptureResult({}, {}, {}), len(self.scanned) * self.repeats
        for i, block in enumerate(self.rest):
            weights, hidden, cross = (before + i in layers for layers in asked)
            own = tuple(None if held is None else held[i] for held in (caches, memories))
            x, cache, maps = run(block, x, *own, before + i, CaptureRequest(weights, cross), prevent_cse=True)
            new.append(cache)
            for have, wanted, y in zip(kept, (weights, hidden, cross), (maps[0], x, maps[1]), strict=True):
                if wanted:
                    have[before + i] = y
        return x, tuple(new), kept

    def project_memory(self, states: jax.Array, positions: jax.Array | None) -> Memory:
        """Keys and values of a memory for the cross-attention of every layer."""

        def one(block: Block) -> kv_cache.KVCache:
            return block.cross.project_memory(states, positions=positions)

        return Memory(tuple(jax.vmap(one)(block) for block in self.scanned), tuple(one(block) for block in self.rest))

    def layers(self) -> list[Block]:
        """All blocks in order, unstacked."""
        own = [[jax.tree.map(lambda x, g=g: x[g], block) for block in self.scanned] for g in range(self.repeats)]
        return [block for group in own for block in group] + list(self.rest)


def _run(
    shared: LayerInputs,
    rng: jax.Array | None,
    remat: str,
    block: Block,
    x: jax.Array,
    cache: Any,
    memory: Any,
    layer: Any,
    wanted: CaptureRequest,
    prevent_cse: bool,
) -> tuple[jax.Array, Any, tuple]:
    """One block, its cache and memory, its layer's random key; what backward recomputes is `remat`'s matter."""

    def body(block: Block, x: jax.Array, cache: Any, memory: Any, rng: jax.Array | None) -> Any:
        return block(x, shared, cache, memory, rng, wanted)

    if remat != "none":
        body = jax.checkpoint(body, policy=POLICIES[remat], prevent_cse=prevent_cse)
    return body(block, x, cache, memory, None if rng is None else jax.random.fold_in(rng, layer))


def scanned_layers(config: LMConfig) -> int:
    """How many layers are scanned: whole rounds of the window pattern."""
    period = len(config.windows)
    return config.depth // period * period if config.scan else 0


def make_blocks(config: LMConfig, rng: jax.Array) -> Blocks:
    """Fresh blocks; both layouts draw the same numbers for the same layer."""
    rngs = jax.vmap(partial(jax.random.fold_in, rng))(jnp.arange(config.depth))
    period, count = len(config.windows), scanned_layers(config)
    places = range(period if count else 0)
    scanned = [jax.vmap(partial(make_block, config, config.windows[i]))(rngs[i:count:period]) for i in places]
    rest = [make_block(config, config.window(layer), rngs[layer]) for layer in range(count, config.depth)]
    return Blocks(scanned, rest)


def restack(layers: list[Block], config: LMConfig) -> Blocks:
    """Blocks in the layout of the config."""
    period, count = len(config.windows), scanned_layers(config)
    scanned = [jax.tree.map(lambda *x: jnp.stack(x), *layers[i:count:period]) for i in range(period)] if count else []
    return Blocks(scanned, layers[count:])


def make_cache(config: LMConfig, batch: tuple[int, ...], capacity: int, dtype: Any, ring_chunk: int | None) -> LMCache:
    """Empty caches in the layout of the config; layers with a window keep a ring if `ring_chunk` says how many rows at
    most are appended at once.
    """

    def one(layer: int) -> kv_cache.KVCache:
        window, slots = config.window(layer), capacity
        ring = window is not None and ring_chunk is not None and window + ring_chunk - 1 < capacity
        if ring:
            slots = window + ring_chunk - 1
        return kv_cache.create(
            slots, config.resolved_kv_heads, config.resolved_head_size, batch=batch, dtype=dtype, ring=ring
        )

    period, count = len(config.windows), scanned_layers(config)
    repeat = lambda x: jnp.broadcast_to(x, (count // period, *x.shape))  # noqa: E731
    scanned = tuple(jax.tree.map(repeat, one(i)) for i in range(period)) if count else ()
    return LMCache(scanned, tuple(one(layer) for layer in range(count, config.depth)))
