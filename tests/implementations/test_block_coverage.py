"""The block coverage of masks is never wrong, and precise enough to skip empty tiles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import Dropout, attend, masks, mods
from jax_attention.attention.prepare import prepare
from jax_attention.implementations.blockwise.tiled_call import TileGrid, make_tile_grid, schedule_tiles
from jax_attention.masks.block_coverage import all_rows_used
from jax_attention.testing.claim_checks import check_coverage
from tests.support.derivatives import check_memory_is_linear, derivatives_of
from tests.support.tiers import slow, slow_except_every

IDS = jnp.array([0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 5, 5, 5])
BLOCKS = np.random.default_rng(0).random((5, 4)) < 0.5
MASKS = {
    "causal": masks.causal(),
    "causal, offset": masks.causal(-3),
    "window": masks.sliding_window(3, 1),
    "window, offset": masks.sliding_window(None, 2, offset=2),
    "prefix": masks.prefix(5),
    "prefix per batch": masks.prefix(jnp.array([5, 9])),
    "lengths": masks.lengths(7, 9),
    "lengths per batch": masks.lengths(jnp.array([4, 8]), jnp.array([9, 3])),
    "lengths per batch, static": masks.lengths(np.array([4, 8]), np.array([9, 3])),
    "segments": masks.segments(IDS, IDS[:11]),
    "dilated": masks.dilated(3),
    "dilated by one": masks.dilated(1),
    "chunked": masks.chunked(4),
    "dense": masks.dense(jnp.asarray(np.random.default_rng(1).random((13, 11)) < 0.2)),
    "block_sparse": masks.block_sparse(jnp.asarray(BLOCKS), 3),
    "prefix | causal": masks.prefix(5) | masks.causal(),
    "~window & causal": ~masks.sliding_window(3) & masks.causal(),
    "~segments | chunked": ~masks.segments(IDS, IDS[:11]) | masks.chunked(4),
    "plain & causal": masks.as_mask(lambda q, k: q != k) & masks.causal(),
}
POSITIONS = {
    "in order": (None, None),
    "moved": (np.arange(13) + 4, None),
    "any": (np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9]), np.array([2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4])),
}


@pytest.mark.parametrize("positions_name", POSITIONS)
@pytest.mark.parametrize("name", slow_except_every(2, MASKS))
@pytest.mark.parametrize("tile", [(4, 3), *slow((1, 1), (13, 11), (5, 2))])
def test_coverage_is_never_wrong(name, positions_name, tile):
    batch_size = 2 if "batch" in name else 1
    q, k = jnp.ones((batch_size, 13, 2)), jnp.ones((batch_size, 11, 2))
    q_pos, k_pos = POSITIONS[positions_name]
    call = prepare(q, k, k, mask=MASKS[name], query_positions=q_pos, key_positions=k_pos)
    grid = make_tile_grid(call, tile)
    coverage, schedule = schedule_tiles(grid, grid.pad(call))
    assert sorted(map(tuple, np.concatenate(schedule))) == sorted(zip(*np.nonzero(coverage.nonempty), strict=True))
    check_coverage(call, tile)


@pytest.mark.parametrize(
    ("mask", "computed"),
    [
        (masks.causal(), 36),
        (masks.sliding_window(16), 15),
        (masks.sliding_window(17), 15),
        (masks.sliding_window(18), 21),
        (masks.chunked(32), 16),
        (masks.causal() & masks.chunked(32), 12),
        (masks.prefix(16), 8),
        (~masks.causal(), 36),
        (masks.causal(-127), 1),
        (masks.block_sparse(np.eye(4, dtype=bool), 32), 16),
        (masks.block_sparse(np.eye(8, dtype=bool)[None, ::-1], 16), 8),
    ],
    ids=repr,
)
@pytest.mark.parametrize("rank", [1, 3])
def test_empty_tiles_are_never_computed(mask, computed, rank):
    """128 x 128 scores in tiles of 16 x 16."""
    positions = np.arange(128).reshape((1,) * (rank - 1) + (-1,))
    coverage = TileGrid(16, 16, 128, 128).coverage(mask, positions, positions)
    assert isinstance(coverage.nonempty_at_runtime, np.ndarray)
    assert coverage.nonempty.sum() == computed


def test_coverage_of_segments_is_an_array_at_run_time():
    ids = jnp.repeat(jnp.arange(4), 32)
    coverage = TileGrid(16, 16, 128, 128).coverage(masks.segments(ids), np.arange(128), np.arange(128))
    assert isinstance(coverage.nonempty_at_runtime, jax.Array)
    assert coverage.nonempty_at_runtime.sum() == 16


def learned_slopes(q):
    """Slopes that depend on the queries, so that they have a gradient."""
    return jnp.mean(q[:32], axis=-1)


RULES = {
    "causal": lambda q: {},
    "documents at run time": lambda q: {"mask": masks.segments(jnp.int32(8 * q[:, 0])) & masks.causal()},
    "slopes": lambda q: {"mods": (mods.alibi(learned_slopes(q)[0]),)},
    "table": lambda q: {"mods": (mods.relative(learned_slopes(q)),)},
    "dropout": lambda q: {"dropout": Dropout(jax.random.key(0), 0.1)},
}
CASES = [("causal", derivative) for derivative in ("forward", "gradient", "jvp", "hvp")]
CASES += [(rule, "gradient") for rule in RULES if rule != "causal"]


@pytest.mark.parametrize(
    ("rule", "derivative"),
    slow_except_every(5, [pytest.param(*case) for case in CASES[:5]], 1)
    + slow(*[pytest.param(*case) for case in CASES[5:]]),
)
def test_memory_is_linear(rule, derivative):
    """A dense map of 8192 x 8192 scores would need 256 MiB."""

    def forward(q, k, v):
        return attend(q, k, v, **{"mask": masks.causal(), **RULES[rule](q)})

    check_memory_is_linear(derivatives_of(forward)[derivative], (4096, 8192), 16)


@pytest.mark.parametrize(
    ("mask", "rows", "columns", "expected"),
    [
        (masks.causal(), 5, 5, True),
        (masks.causal(2), 3, 5, True),
        (masks.causal(-2), 5, 3, False),  # every key is used, two queries have none
        (masks.causal(), 3, 5, False),  # every query has a key, two keys are not used
        (masks.segments(jnp.zeros(5, int)), 5, 5, False),
    ],
)
def test_all_rows_used(mask, rows, columns, expected):
    assert all_rows_used(mask, np.arange(rows), np.arange(columns)) == expected
