"""The depth of a model: blocks one after the other, or stacked and run by `lax.scan`."""

from __future__ import annotations

from collections.abc import Callable
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
        asked = capture.layers(len(self.scanned) * self.repeats + len(self.rest))
        hidden = {EMBEDDING: x} if EMBEDDING in asked[1] else {}
        run = partial(_run, shared, rng, remat)
        x, first, kept = self._scan(run, x, None if cache is None else cache.scanned, asked)
        x, last, more = self._unroll(run, x, None if cache is None else cache.rest, asked)
        weights, hidden = kept.weights | more.weights, hidden | kept.hidden | more.hidden
        new = None if cache is None else LMCache(first, last)
        return x, new, Captured({n: weights[n] for n in asked[0]}, {n: hidden[n] for n in asked[1]})

    def _scan(self, run: Callable, x: jax.Array, caches: Any, asked: tuple) -> tuple[jax.Array, tuple, Captured]:
        """Through the stacked blocks, one round of the window pattern after the other."""
        period, repeats = len(self.scanned), self.repeats
        if not period:
            return x, (), Captured({}, {})
        asked = tuple([n for n in layers if 0 <= n < period * repeats] for layers in asked)

        def round_trip(x: jax.Array, entry: Any) -> Any:
            blocks, caches, g = entry
            new, kept = [], []
            for i, block in enumerate(blocks):
                weights, hidden = (any(n % period == i for n in layers) for layers in asked)
                own = None if caches is None else caches[i]
                x, own, w = run(block, x, own, g * period + i, weights, prevent_cse=False)
                new.append(own)
                kept.append((w, x if hidden else None))
            return x, (tuple(new), tuple(kept))

        x, (new, kept) = jax.lax.scan(round_trip, x, (tuple(self.scanned), caches, jnp.arange(repeats)))
        found = ({n: kept[n % period][what][n // period] for n in layers} for what, layers in enumerate(asked))
        return x, new, Captured(*found)

    def _unroll(self, run: Callable, x: jax.Array, caches: Any, asked: tuple) -> tuple[jax.Array, tuple, Captured]:
        """Through the blocks that stand alone."""
        new, kept = [], Captured({}, {})
        for layer, block in enumerate(self.rest, len(self.scanned) * self.repeats):
            own = None if caches is None else caches[len(new)]
            x, own, w = run(block, x, own, layer, layer in asked[0], prevent_cse=True)
            new.append(own)
            if layer in asked[0]:
                kept.weights[layer] = w
            if layer in asked[1]:
                kept.hidden[layer] = x
        return x, tuple(new), kept

    def layers(self) -> list[Block]:
        """All blocks in order, unstacked."""
        own = [[jax.tree.map(lambda x, g=g: x[g], block) for block in self.scanned] for g in range(self.repeats)]
        return [block for group in own for block in group] + list(self.rest)


def _run(
    shared: Shared,
    rng: jax.Array | None,
    remat: str,
    block: Block,
    x: jax.Array,
    own: Any,
    layer: Any,
    keep_weights: bool,
    prevent_cse: bool,
) -> tuple[jax.Array, Any, jax.Array | None]:
    """One block, its cache, its layer's random key; what backward recomputes is `remat`'s matter."""

    def body(block: Block, x: jax.Array, own: Any, rng: jax.Array | None) -> Any:
        return block(x, shared, own, rng, keep_weights)

    if remat != "none":
        body = jax.checkpoint(body, policy=POLICIES[remat], prevent_cse=prevent_cse)
    return body(block, x, own, None if rng is None else jax.random.fold_in(rng, layer))


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
