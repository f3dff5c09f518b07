"""The depth of a model: blocks one after the other, or stacked and run by `lax.scan`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import cache as kv_cache
from jax_attention.models.block import Block, Shared, make_block
from jax_attention.models.config import LMConfig
from jax_attention.models.results import EMBEDDING, Capture, Captured, LMCache

POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Stack(nnx.Module):
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
        shared: Shared,
        cache: LMCache | None,
        rng: jax.Array | None,
        capture: Capture,
        remat: str,
    ) -> tuple[jax.Array, LMCache | None, Captured]:
        """Through all layers: the stream, the new cache, and what was asked for."""
        period, repeats = len(self.scanned), self.repeats
        count = period * repeats
        want_weights, want_hidden = capture.layers(count + len(self.rest))
        hidden = {EMBEDDING: x} if EMBEDDING in want_hidden else {}
        weights: dict[int, jax.Array] = {}

        def run(block: Block, x: jax.Array, own: Any, layer: Any, keep_weights: bool, prevent_cse: bool) -> Any:
            def body(block: Block, x: jax.Array, own: Any, rng: jax.Array | None) -> Any:
                return block(x, shared, own, rng, keep_weights)

            if remat != "none":
                body = jax.checkpoint(body, policy=POLICIES[remat], prevent_cse=prevent_cse)
            return body(block, x, own, None if rng is None else jax.random.fold_in(rng, layer))

        def round_trip(x: jax.Array, entry: Any) -> Any:
            blocks, caches, g = entry
            new, kept = [], []
            for i, block in enumerate(blocks):
                asked_w, asked_h = (any(n % period == i for n in _below(w, count)) for w in (want_weights, want_hidden))
                own = None if caches is None else caches[i]
                x, own, w = run(block, x, own, g * period + i, asked_w, prevent_cse=False)
                new.append(own)
                kept.append((w, x if asked_h else None))
            return x, (tuple(new), tuple(kept))

        new_scanned: tuple = ()
        if count:
            entries = (tuple(self.scanned), None if cache is None else cache.scanned, jnp.arange(repeats))
            x, (new_scanned, kept) = jax.lax.scan(round_trip, x, entries)
            weights |= {n: kept[n % period][0][n // period] for n in _below(want_weights, count)}
            hidden |= {n: kept[n % period][1][n // period] for n in _below(want_hidden, count)}
        new_rest = []
        for i, block in enumerate(self.rest):
            layer = count + i
            own = None if cache is None else cache.rest[i]
            x, own, w = run(block, x, own, layer, layer in want_weights, prevent_cse=True)
            new_rest.append(own)
            weights |= {layer: w} if layer in want_weights else {}
            hidden |= {layer: x} if layer in want_hidden else {}
        new = None if cache is None else LMCache(new_scanned, tuple(new_rest))
        ordered = Captured({n: weights[n] for n in want_weights}, {n: hidden[n] for n in want_hidden})
        return x, new, ordered

    def layers(self) -> list[Block]:
        """All blocks in order, unstacked."""
        own = [[jax.tree.map(lambda x, g=g: x[g], block) for block in self.scanned] for g in range(self.repeats)]
        return [block for group in own for block in group] + list(self.rest)


def _below(layers: tuple[int, ...], count: int) -> list[int]:
    return [n for n in layers if 0 <= n < count]


def scanned_layers(config: LMConfig) -> int:
    """How many layers are scanned: whole rounds of the window pattern."""
    period = len(config.windows)
    return config.depth // period * period if config.scan else 0


def make_stack(config: LMConfig, rng: jax.Array) -> Stack:
    """Fresh blocks; both layouts draw the same numbers for the same layer."""
    rngs = jax.vmap(partial(jax.random.fold_in, rng))(jnp.arange(config.depth))
    period, count = len(config.windows), scanned_layers(config)
    places = range(period if count else 0)
    scanned = [jax.vmap(partial(make_block, config, config.windows[i]))(rngs[i:count:period]) for i in places]
    rest = [make_block(config, config.window(layer), rngs[layer]) for layer in range(count, config.depth)]
    return Stack(scanned, rest)


def restack(layers: list[Block], config: LMConfig) -> Stack:
    """Blocks in the layout of the config."""
    period, count = len(config.windows), scanned_layers(config)
    scanned = [jax.tree.map(lambda *x: jnp.stack(x), *layers[i:count:period]) for i in range(period)] if count else []
    return Stack(scanned, layers[count:])


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
