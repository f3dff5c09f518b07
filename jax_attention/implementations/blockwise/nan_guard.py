"""Set rows that no allowed pair needs to 0 before anything is computed, so that NaN in padding goes nowhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.core.explicit_axes import batch_sharding
from jax_attention.core.numerics import pvary_like
from jax_attention.implementations.blockwise.tile_scan import skip_if_empty
from jax_attention.implementations.blockwise.tiled_call import TileGrid, schedule_tiles
from jax_attention.implementations.call import AttentionCall


def zero_unused(grid: TileGrid, call: AttentionCall) -> AttentionCall:
    """The call with zeros in the rows of query, key and value that the mask excludes altogether."""
    return call.zero_unused(*_used(grid, call))


def _used(grid: TileGrid, call: AttentionCall) -> tuple[jax.Array, jax.Array]:
    """Queries `[..., T]` and keys `[..., S]` that have an allowed pair, found tile by tile."""
    padded = grid.pad(
        call.replace(query=None, key=None, value=None, score=None, mods=(), normalize=None, batch_index=None)
    )
    coverage, schedule = schedule_tiles(grid, padded)
    nonempty = coverage.nonempty_at_runtime
    padded = padded.replace(
        query_positions=pvary_like(jnp.asarray(padded.query_positions), call),
        key_positions=pvary_like(jnp.asarray(padded.key_positions), call),
    )

    def allowed(i: jax.Array, j: jax.Array) -> jax.Array:
        tile = grid.slice(padded, i, j)
        where = tile.mask(*tile.pair_positions)
        where = where & grid.is_not_padding(j, where.ndim)
        return jnp.broadcast_to(where, (*where.shape[:-2], grid.height, grid.width))

    def step(used: tuple[jax.Array, jax.Array], i: jax.Array, j: jax.Array, masked: bool) -> tuple:
        shape = (*batch, grid.height, grid.width)
        where = jnp.ones(shape, bool)
        if masked:
            tile_nonempty = nonempty[i, j] if isinstance(nonempty, jax.Array) else None
            where = skip_if_empty(
                tile_nonempty, lambda: jnp.broadcast_to(allowed(i, j), shape), lambda: jnp.zeros(shape, bool)
            )
        rows, columns = used
        return _or_slice(rows, i, where.any(-1)), _or_slice(columns, j, where.any(-2))

    zero = jnp.int32(0)
    example = jax.eval_shape(allowed, zero, zero)
    batch = (1,) * (len(call.batch_shape) - len(example.shape[:-2])) + example.shape[:-2]
    where = jax.eval_shape(lambda: jnp.broadcast_to(allowed(zero, zero), (*batch, grid.height, grid.width)))
    sizes, sharding = (grid.rows * grid.height, grid.columns * grid.width), batch_sharding(1, where)
    start = tuple(jnp.zeros((*batch, n), bool, out_sharding=sharding) for n in sizes)
    rows, columns = schedule.scan(step, pvary_like(start, example))
    return rows[..., : grid.T], columns[..., : grid.S]


def _or_slice(x: jax.Array, index: jax.Array, new: jax.Array) -> jax.Array:
    """`x[..., n]` with `new[..., size]` or-ed into block `index`."""
    size = new.shape[-1]
    old = jax.lax.dynamic_slice_in_dim(x, index * size, size, axis=-1)
    return jax.lax.dynamic_update_slice_in_dim(x, old | new, index * size, -1)
