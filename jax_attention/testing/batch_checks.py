"""Checks of batch dimensions: grouped heads, `vmap`, and batch elements that know nothing of each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.testing.report import check_equal
from jax_attention.testing.trial import Trial, fast_jit

CURE = (
    "Let arrays broadcast in front of the tile: per_tile(self.x) in a part, x[:, None, None] in a function; never "
    "reshape or reduce batch dimensions."
)


def grouped_heads(trial: Trial) -> str:
    """Query heads that share a key head give the result of repeated keys."""
    query, key, value = trial.operands
    groups = trial.heads // trial.key_heads
    repeated = (jnp.repeat(x, groups, axis=-2) for x in (key, value))
    run = fast_jit(trial.attend)
    check_equal({"the output": run(*trial.operands)}, {"the output": run(query, *repeated)}, trial, CURE)
    return f"N = {trial.heads}, K = {trial.key_heads}"


def batch_elements(trial: Trial) -> None:
    """Another last batch element changes no other, bit for bit."""
    run = fast_jit(trial.attend)
    changed = run(*(x.at[-1].multiply(-2.0) for x in trial.operands))[:-1]
    check_equal(
        {"the first batch elements": changed},
        {"the first batch elements": run(*trial.operands)[:-1]},
        f"{trial}, another last batch element",
        CURE,
        tolerance=0.0,
    )


def vmap_and_batch(trial: Trial) -> None:
    """`vmap` over operands and arrays gives what one call after the other gives."""
    points = (
        trial.point,
        {name: -0.5 * x if name in ("query", "key", "value") else 1.1 * x for name, x in trial.point.items()},
    )
    mapped = fast_jit(jax.vmap(trial.attend_at))(jax.tree.map(lambda *x: jnp.stack(x), *points))
    run = fast_jit(trial.attend_at)
    for n, point in enumerate(points):
        check_equal({"the output": mapped[n]}, {"the output": run(point)}, f"{trial}, vmap over two calls", CURE)
