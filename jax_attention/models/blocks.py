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
from jax_attention.nn.listing import unlisted
from jax_attention.nn.short_repr import ShortRepr

POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What the backward pass may keep, by the config's `remat`."""


class Blocks(ShortRepr, nnx.Module):
    """`depth` blocks, some of them stacked.

    With P the length of the window pattern, layer `g P + i` of the stacked layers is entry g of `scanned[i]`. Layers
    that do not fill a whole pattern, or all layers of an unrolled model, are in `rest`.
    """

    def __init__(self, scanned: list[Block], rest: list[Block]):
        self.scanned, self.rest = nnx.List(scanned), nnx.List(rest)

    @property
    def repeats(self) -> int:
        """Number of rounds of the scan, each of which runs the whole window pattern."""
        return jax.tree.leaves(self.scanned[0])[0].shape[0] if len(self.scanned) else 0

    def __call__(
        self,
        x: jax.Array,
        inputs: LayerInputs,
        cache: LMCache | None,
        memory: Memory | None,
        rng: jax.Array | None,
        capture: Capture,
        config: LMConfig,
    ) -> tuple[jax.Array, LMCache | None, CaptureResult]:
        """Run all layers: the residual stream, the new cache, and the captured arrays."""
        layers = capture.layers(len(self.scanned) * self.repeats + len(self.rest))
        run = partial(_run_block, inputs, rng, config)
        scanned_caches, scanned_memories = (None if store is None else store.scanned for store in (cache, memory))
        rest_caches, rest_memories = (None if store is None else store.rest for store in (cache, memory))
        embedded = CaptureResult({}, {EMBEDDING: x}, {})
        x, scanned_caches, captured_scanned = self._scan(run, x, scanned_caches, scanned_memories, layers)
        x, rest_caches, captured_rest = self._unroll(run, x, rest_caches, rest_memories, layers)
        merged = [a | b | c for a, b, c in zip(embedded, captured_scanned, captured_rest, strict=True)]
        captured = CaptureResult(*({n: arrays[n] for n in kind} for arrays, kind in zip(merged, layers, strict=True)))
        return x, None if cache is None else LMCache(scanned_caches, rest_caches), captured

    def _scan(
        self, run: Callable, x: jax.Array, caches: Any, memories: Any, layers: tuple
    ) -> tuple[jax.Array, tuple, CaptureResult]:
        """Run the stacked blocks, one round of the window pattern after the other."""
        period, repeats = len(self.scanned), self.repeats
        if not period:
            return x, (), CaptureResult({}, {}, {})
        layers = tuple([n for n in kind if 0 <= n < period * repeats] for kind in layers)

        def run_pattern(x: jax.Array, entry: Any) -> Any:
            blocks, caches, memories, g = entry
            new_caches, captured = [], []
            for i, block in enumerate(blocks):
                # A scan returns all rounds or none: one requested layer costs the layers at its place in the pattern.
                weights, hidden, cross = (any(n % period == i for n in kind) for kind in layers)
                cache, memory = (None if stores is None else stores[i] for stores in (caches, memories))
                request = CaptureRequest(weights, cross)
                x, cache, maps = run(block, x, cache, memory, g * period + i, request, prevent_cse=False)
                new_caches.append(cache)
                captured.append((maps[0], x if hidden else None, maps[1]))
            return x, (tuple(new_caches), tuple(captured))

        entries = (tuple(self.scanned), caches, memories, jnp.arange(repeats))
        x, (new_caches, captured) = jax.lax.scan(run_pattern, x, entries)
        by_layer = ({n: captured[n % period][kind][n // period] for n in ns} for kind, ns in enumerate(layers))
        return x, new_caches, CaptureResult(*by_layer)

    def _unroll(
        self, run: Callable, x: jax.Array, caches: Any, memories: Any, layers: tuple
    ) -> tuple[jax.Array, tuple, CaptureResult]:
        """Run the blocks that are not stacked."""
        new_caches, captured, first = [], CaptureResult({}, {}, {}), len(self.scanned) * self.repeats
        for i, block in enumerate(self.rest):
            weights, hidden, cross = (first + i in kind for kind in layers)
            cache, memory = (None if stores is None else stores[i] for stores in (caches, memories))
            x, cache, maps = run(block, x, cache, memory, first + i, CaptureRequest(weights, cross), prevent_cse=True)
            new_caches.append(cache)
            requested = (weights, hidden, cross)
            for arrays, is_requested, array in zip(captured, requested, (maps[0], x, maps[1]), strict=True):
                if is_requested:
                    arrays[first + i] = array
        return x, tuple(new_caches), captured

    def project_memory(self, states: jax.Array, positions: jax.Array | None) -> Memory:
        """Keys and values of a source for the cross-attention of every layer."""

        def project(block: Block) -> kv_cache.KVCache:
            return unlisted(block.cross.project_memory)(states, positions=positions)

        return Memory(tuple(jax.vmap(project)(block) for block in self.scanned), tuple(map(project, self.rest)))

    def layers(self) -> list[Block]:
        """All blocks in order, unstacked."""
        rounds = [[jax.tree.map(lambda x, g=g: x[g], block) for block in self.scanned] for g in range(self.repeats)]
        return [block for blocks in rounds for block in blocks] + list(self.rest)


def _run_block(
    inputs: LayerInputs,
    rng: jax.Array | None,
    config: LMConfig,
    block: Block,
    x: jax.Array,
    cache: Any,
    memory: Any,
    layer: Any,
    request: CaptureRequest,
    prevent_cse: bool,
) -> tuple[jax.Array, Any, tuple]:
    """Run one block with its cache, its memory and the random key of its layer, under the config's remat policy.

    `prevent_cse` keeps XLA from merging the recomputation with the first computation, which would keep in memory what
    remat frees. Inside of a scan that cannot happen, and the barrier would only cost time.
    """

    inputs = inputs.scaled(layer) if config.scale_by_layer else inputs

    def body(block: Block, x: jax.Array, cache: Any, memory: Any, rng: jax.Array | None) -> Any:
        return unlisted(block.__call__)(x, inputs, cache, memory, rng, request)

    if config.remat != "none":
        body = jax.checkpoint(body, policy=POLICIES[config.remat], prevent_cse=prevent_cse)
    return body(block, x, cache, memory, None if rng is None else jax.random.fold_in(rng, layer))


def scanned_layers(config: LMConfig) -> int:
    """Number of layers that are scanned: whole rounds of the window pattern."""
    period = len(config.windows)
    return config.depth // period * period if config.scan else 0


def make_blocks(config: LMConfig, rng: jax.Array) -> Blocks:
    """Fresh blocks in the layout of the config; both layouts draw the same numbers for the same layer."""
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
    """Empty caches in the layout of the config.

    Layers with a window keep a ring if `ring_chunk` says how many rows at most are appended at once.
    """

    def make(layer: int) -> kv_cache.KVCache:
        window, slots = config.window(layer), capacity
        ring = window is not None and ring_chunk is not None and window + ring_chunk - 1 < capacity
        if ring:
            slots = window + ring_chunk - 1
        return kv_cache.create(
            slots, config.resolved_kv_heads, config.resolved_head_size, batch=batch, dtype=dtype, ring=ring
        )

    period, count = len(config.windows), scanned_layers(config)

    def repeat(x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(x, (count // period, *x.shape))

    scanned = tuple(jax.tree.map(repeat, make(i)) for i in range(period)) if count else ()
    return LMCache(scanned, tuple(make(layer) for layer in range(count, config.depth)))
