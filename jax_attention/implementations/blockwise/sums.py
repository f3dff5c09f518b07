"""Sums over tiles with one derivative rule, from which JAX makes every other.

    sums_t = sum over tiles  f(tile),        d sums_t = sum over tiles  df(tile)[d query, d key, d value, d rule]

The anchor (softmax: the row's largest score) is a constant to derivatives: what `finish` makes of the sums does not
depend on it. The tangent is linear in the tangents and recomputes each tile, so its transpose, which JAX makes, is the
backward pass of flash attention; both need memory for one tile at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from jax_attention.dropout import Dropout
from jax_attention.ground.numerics import filled, matmul_precision, varying_like
from jax_attention.implementations.blockwise.measures import Tile
from jax_attention.implementations.blockwise.plan import Plan
from jax_attention.implementations.sentence import modified
from jax_attention.masks import Mask
from jax_attention.masks.cover import Cover
from jax_attention.mods import Mod
from jax_attention.scores import Score


class Given(NamedTuple):
    """What sums can be differentiated by: projected query and key, value, and the rule; padded."""

    query: jax.Array
    key: jax.Array
    value: jax.Array
    score: Score
    mods: tuple[Mod, ...]
    measure: Any


class Fixed(NamedTuple):
    """What they cannot: mask, positions and dropout; padded. `alive` is a table of tiles that are not empty, or None if
    nothing is known only when run.
    """

    mask: Mask | None
    q_pos: jax.Array
    k_pos: jax.Array
    dropout: Dropout | None
    index: jax.Array | None
    alive: jax.Array | None


def sums_over_tiles(plan: Plan, cover: Cover, given: Given, fixed: Fixed, precision: Any) -> tuple[Any, Any]:
    """The sums `[..., rows, columns]` of the measure, and the rows' anchors.

    The derivative rule may be traced when the call is long over, so the precision of products is set there again.
    """
    order = Order(plan, cover)

    @jax.custom_jvp
    def sums(given: Given, fixed: Fixed) -> tuple[Any, Any]:
        return _sums(order, given, fixed)

    @partial(sums.defjvp, symbolic_zeros=True)
    def sums_jvp(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
        given, fixed = primals
        with matmul_precision(precision):
            out, anchor = sums(given, fixed)
            change = _change(order, given, tangents[0], fixed, anchor, out)
        return (out, anchor), (change, jax.tree.map(jnp.zeros_like, anchor))

    return sums(given, fixed)


class Order:
    """The tiles to compute, row by row: first those in which every pair may attend, then those to be masked."""

    def __init__(self, plan: Plan, cover: Cover):
        self.plan = plan
        self.lists = [(np.argwhere(cover.some & (cover.all == full)).astype(np.int32), full) for full in (True, False)]

    def over(self, step: Callable, carry: Any) -> Any:
        """`carry = step(carry, i, j, masked)` over all tiles, whose derivatives compute each tile again: without the
        checkpoint, what depends on positions alone would be kept for every one.
        """
        for tiles, full in self.lists:
            if len(tiles):
                body = lambda carry, place, masked=not full: (step(carry, *place, masked), None)  # noqa: E731
                carry, _ = jax.lax.scan(jax.checkpoint(body), carry, (tiles[:, 0], tiles[:, 1]))
        return carry


def unless_empty(alive: jax.Array | None, masked: bool, run: Callable, otherwise: Callable, *operands: Any) -> Any:
    """`run(*operands)`, or `otherwise` where the mask turns out to leave nothing. Operands are parts of arrays, cut
    before: the derivative of a branch is as large as what it is given.
    """
    if alive is None or not masked:
        return run(*operands)
    return jax.lax.cond(alive, run, lambda *x: varying_like(otherwise(*x), jax.eval_shape(run, *x)), *operands)


def _cut(plan: Plan, given: Given, fixed: Fixed, i: jax.Array, j: jax.Array) -> tuple[Given, Fixed]:
    """What belongs to tile `i, j`; positions ready to broadcast."""
    rows, columns = ((lambda x, axes=axes: plan.cut(x, axes, i, j)) for axes in (("T", "-"), ("S", "-")))
    parts = {name: plan.cut_value(getattr(given, name), i, j) for name in ("score", "mods", "measure")}
    given = given._replace(query=rows(given.query), key=columns(given.key), value=columns(given.value), **parts)
    fixed = fixed._replace(
        mask=plan.cut_value(fixed.mask, i, j),
        q_pos=plan.cut(fixed.q_pos, ("T",), i, j)[..., :, None],
        k_pos=plan.cut(fixed.k_pos, ("S",), i, j)[..., None, :],
        alive=None if fixed.alive is None else fixed.alive[i, j],
    )
    return given, fixed


def _tile(given: Given, fixed: Fixed, inside: jax.Array, masked: bool) -> Tile:
    """The tile of what was cut for it."""
    scores = given.score.tile(given.query, given.key)
    where = jnp.ones((), bool)
    if masked:
        where = inside
        if fixed.mask is not None:
            allowed = fixed.mask(fixed.q_pos, fixed.k_pos)
            where = where & allowed.reshape(allowed.shape[-scores.ndim :])  # a plain mask may add axes of size 1
    shape = jnp.broadcast_shapes(scores.shape, where.shape)
    lead = jnp.broadcast_shapes(shape[:-2], given.value.shape[:-2])
    scores, where = (jnp.broadcast_to(x, lead + shape[-2:]) for x in (scores, where))
    scores, where = modified(scores, where, given.mods, fixed.q_pos, fixed.k_pos, given.measure.normalize)
    return Tile(scores, where, given.value, fixed.q_pos, fixed.k_pos, fixed.dropout, fixed.index)


def inside(plan: Plan, j: jax.Array) -> jax.Array:
    """False for columns that only fill up the last tiles. (Rows that do are copies of the last one, and cut off.)"""
    if plan.S % plan.width == 0:
        return jnp.ones((1, 1), bool)
    return (j * plan.width + jnp.arange(plan.width) < plan.S)[None, :]


def _sums(order: Order, given: Given, fixed: Fixed) -> tuple[Any, Any]:
    """One pass over tiles; the anchor grows as they come."""
    plan = order.plan

    def own(given: Given, fixed: Fixed, inside: jax.Array, masked: bool, old: Any) -> tuple[Any, Any]:
        tile = _tile(given, fixed, inside, masked)
        anchor = given.measure.anchor(tile)
        anchor = anchor if old is None else jnp.maximum(old, anchor)
        return given.measure.sums(tile, anchor), anchor

    def first() -> tuple[Any, Any]:
        zero = jnp.zeros((), jnp.int32)
        return own(*_cut(plan, given, fixed, zero, zero), inside(plan, zero), True, None)

    def fill(x: jax.ShapeDtypeStruct, with_: float) -> jax.Array:
        return filled((*x.shape[:-2], plan.rows * plan.height, x.shape[-1]), with_, x)

    shapes = jax.eval_shape(first)
    start = jax.tree.map(partial(fill, with_=0), shapes[0]), jax.tree.map(partial(fill, with_=-jnp.inf), shapes[1])

    def step(carry: tuple[Any, Any], i: jax.Array, j: jax.Array, masked: bool) -> tuple[Any, Any]:
        part, edge = _cut(plan, given, fixed, i, j), inside(plan, j)

        def joined(sums: Any, old: Any) -> tuple[Any, Any]:
            new, anchor = own(*part, edge, masked, old)
            return part[0].measure.joined(sums, new, old, anchor), anchor

        rows = jax.tree.map(partial(_read, plan, i), carry)
        rows = unless_empty(part[1].alive, masked, joined, lambda *rows: rows, *rows)
        return jax.tree.map(partial(_write, plan, i), carry, rows)

    return order.over(step, varying_like(start, (given, fixed)))


def _change(order: Order, given: Given, tangents: Given, fixed: Fixed, anchor: Any, out: Any) -> Any:
    """The tangent of the sums; arrays with a tangent known to be 0 are constants."""
    plan = order.plan
    leaves, tree = jax.tree.flatten(given)
    moving = jax.tree.leaves(tangents, is_leaf=lambda x: isinstance(x, SymbolicZero))
    places = [n for n, x in enumerate(moving) if not isinstance(x, SymbolicZero) and x.dtype != jax.dtypes.float0]
    if not places:
        return jax.tree.map(jnp.zeros_like, out)

    directions = [moving[place] for place in places]

    def contribution(i: jax.Array, j: jax.Array, masked: bool) -> Any:
        own_anchor, edge = jax.tree.map(partial(_read, plan, i), anchor), inside(plan, j)

        def sums(own: list[Any]) -> Any:
            changed = list(leaves)
            for place, x in zip(places, own, strict=True):
                changed[place] = x
            part, own_fixed = _cut(plan, jax.tree.unflatten(tree, changed), fixed, i, j)
            run = lambda part: part.measure.sums(_tile(part, own_fixed, edge, masked), own_anchor)  # noqa: E731
            nothing = lambda part: jax.tree.map(lambda x: jnp.zeros_like(_read(plan, i, x)), out)  # noqa: E731
            return unless_empty(own_fixed.alive, masked, run, nothing, part)

        return jax.jvp(sums, ([leaves[place] for place in places],), (directions,))[1]

    def step(carry: Any, i: jax.Array, j: jax.Array, masked: bool) -> Any:
        own = contribution(i, j, masked)
        return jax.tree.map(lambda total, x: _write(plan, i, total, _read(plan, i, total) + x), carry, own)

    return order.over(step, varying_like(jax.tree.map(jnp.zeros_like, out), out))


def _read(plan: Plan, i: jax.Array, x: jax.Array) -> jax.Array:
    """Block i of rows."""
    return jax.lax.dynamic_slice_in_dim(x, i * plan.height, plan.height, axis=x.ndim - 2)


def _write(plan: Plan, i: jax.Array, x: jax.Array, block: jax.Array) -> jax.Array:
    """`x` with another block i."""
    return jax.lax.dynamic_update_slice_in_dim(x, block, i * plan.height, axis=x.ndim - 2)
