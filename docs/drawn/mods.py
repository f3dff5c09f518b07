"""Pictures of the mods: what becomes of a score, by its value or by the distance of its pair."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from docs.drawing import COLOURS, GREY, bars, curves, label, steady, table
from docs.drawn.normalizers import ROW
from jax_attention import mods, normalizers, positions


def changed(mod, score: jnp.ndarray, relative: jnp.ndarray) -> jnp.ndarray:
    """What a mod makes of scores `[n]` of a query at 0 and keys at `relative[n]`; one row per leading entry."""
    return mod(score[None], jnp.zeros((1, 1), jnp.int32), relative[None])


def bias(a, b, c) -> None:
    """Scores, the array, and their sum; a crossed cell is -inf, a pair that is forbidden."""
    before = jnp.array([[1.0, 0.5, -0.5], [0.0, 1.0, 0.5], [-1.0, 0.0, 1.5]])
    array = jnp.array([[0.0, 1.0, -jnp.inf], [0.5, 0.0, -jnp.inf], [0.0, -0.5, 0.0]])
    after = mods.bias(array)(before, jnp.arange(3)[:, None], jnp.arange(3)[None])
    for axes, x, title in ((a, before, "scores"), (b, array, "+ array (x is -inf)"), (c, after, "= changed scores")):
        table(axes, x, title, "key row s", "query row t")


def alibi(a, b) -> None:
    """The penalty, and the weights that equal scores get from it."""
    relative = jnp.arange(-16, 17)
    slopes = positions.alibi_slopes(4)
    lines = changed(mods.alibi(slopes), jnp.zeros(33), relative)[:, 0]
    names = [f"head {i}, slope {s:g}" for i, s in enumerate(np.asarray(slopes).tolist())]
    x, y = "key position - query position", "added to the score"
    curves(a, relative, dict(zip(names, lines, strict=True)), "four heads", x, y)
    past = relative <= 0
    weights = normalizers.softmax()(lines[:, past])
    curves(b, relative[past], dict(zip(names, weights, strict=True)), "equal scores, causal", x, "softmax weight")


def relative(a, b) -> None:
    """Steps that widen with distance: all keys of a bucket share one learned number."""
    relative = jnp.arange(-24, 25)
    tables = jnp.array([[2.0, 1.6, 1.2, 0.8, 0.4, 0.2, 0.1, 0.0], [0.0, 2.0, 0.5, 0.25, 0.0, -1.0, -1.5, -2.0]])
    for axes, both in ((a, True), (b, False)):
        rule = mods.relative(tables, bidirectional=both, max_distance=20)
        for head, y in enumerate(steady(changed(rule, jnp.zeros(49), relative)[:, 0])):
            axes.step(steady(relative), y, where="mid", color=COLOURS[head], label=f"head {head}")
        label(axes, f"8 buckets, bidirectional={both}", "key position - query position", "added to the score")
        axes.legend()


def soft_cap(a, b) -> None:
    """Nearly the identity near 0, flat far out."""
    z = jnp.linspace(-20, 20, 161)
    apply = lambda cap, x: changed(mods.soft_cap(cap), x, jnp.arange(x.size))[0]  # noqa: E731
    curves(a, z, {f"cap {c:g}": apply(c, z) for c in (2.0, 5.0, 10.0)}, "scores before and after", "score", "score'")
    a.plot([-12, 12], [-12, 12], color=GREY, linewidth=0.7)
    row = 4 * jnp.asarray(ROW)
    heights = {"no cap": row, "cap 5": apply(5.0, row)}
    heights = {name: normalizers.softmax()(x[None])[0] for name, x in heights.items()}
    bars(b, heights, [f"{z:g}" for z in row.tolist()], "softmax of one row", "score of the key", "weight")


def temperature(a, b) -> None:
    """One row of scores at three temperatures, and how uncertain the weights are at many."""
    apply = lambda t: normalizers.softmax()(changed(mods.temperature(t), jnp.asarray(ROW), jnp.arange(5)))[0]  # noqa: E731
    heights = {f"temperature {t:g}": apply(t) for t in (0.5, 1.0, 4.0)}
    bars(a, heights, [f"{z:g}" for z in ROW], "softmax of one row", "score of the key", "weight")
    many = jnp.asarray(2.0 ** np.linspace(-4, 6, 81), jnp.float32)
    entropy = [-jnp.sum(w * jnp.log(jnp.maximum(w, 1e-30))) for w in map(apply, many)]
    curves(b, many, {"entropy": entropy}, "entropy of these weights", "temperature", "entropy in nats")
    b.axhline(np.round(np.log(5), 4), color=GREY, linewidth=0.8)
    b.annotate("log 5: uniform", (0.07, 1.5), color=GREY)
    b.set_xscale("log", base=2)
