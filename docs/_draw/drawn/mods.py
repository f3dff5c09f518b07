"""Pictures of the mods: the changed score as a function of the score or of the distance of its pair."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from docs._draw.drawing import COLOURS, GREY, bars, curves, label, rounded, table
from docs._draw.drawn.normalizers import ROW
from jax_attention import mods, normalizers, positions


def apply_mod(mod, score: jnp.ndarray, relative: jnp.ndarray) -> jnp.ndarray:
    """Scores `[n]` of a query at 0 and keys at `relative[n]`, changed by a mod; one row per batch entry of the mod."""
    return mod(score[None], jnp.zeros((1, 1), jnp.int32), relative[None])


def bias(a, b, c) -> None:
    """Scores, the array, and their sum; a crossed cell is -inf, which forbids the pair."""
    before = jnp.array([[1.0, 0.5, -0.5], [0.0, 1.0, 0.5], [-1.0, 0.0, 1.5]])
    array = jnp.array([[0.0, 1.0, -jnp.inf], [0.5, 0.0, -jnp.inf], [0.0, -0.5, 0.0]])
    after = mods.bias(array)(before, jnp.arange(3)[:, None], jnp.arange(3)[None])
    for axes, x, title in ((a, before, "scores"), (b, array, "+ array (x is -inf)"), (c, after, "= changed scores")):
        table(axes, x, title, "key row s", "query row t")


def alibi(a, b) -> None:
    """The penalty, and the softmax weights of equal scores with it."""
    relative = jnp.arange(-16, 17)
    slopes = positions.alibi_slopes(4)
    lines = apply_mod(mods.alibi(slopes), jnp.zeros(33), relative)[:, 0]
    names = [f"head {i}, slope {s:g}" for i, s in enumerate(np.asarray(slopes).tolist())]
    x, y = "key position - query position", "added to the score"
    curves(a, relative, dict(zip(names, lines, strict=True)), "four heads", x, y)
    past = relative <= 0
    weights = normalizers.softmax()(lines[:, past])
    curves(b, relative[past], dict(zip(names, weights, strict=True)), "equal scores, causal", x, "softmax weight")


def relative(a, b) -> None:
    """Learned steps that widen with distance: all keys of a bucket share one number."""
    relative = jnp.arange(-24, 25)
    tables = jnp.array([[2.0, 1.6, 1.2, 0.8, 0.4, 0.2, 0.1, 0.0], [0.0, 2.0, 0.5, 0.25, 0.0, -1.0, -1.5, -2.0]])
    for axes, both in ((a, True), (b, False)):
        rule = mods.relative(tables, bidirectional=both, max_distance=20)
        for head, y in enumerate(rounded(apply_mod(rule, jnp.zeros(49), relative)[:, 0])):
            axes.step(rounded(relative), y, where="mid", color=COLOURS[head], label=f"head {head}")
        label(axes, f"8 buckets, bidirectional={both}", "key position - query position", "added to the score")
        axes.legend()


def soft_cap(a, b) -> None:
    """The capped score: nearly the identity near 0, flat far out."""
    z = jnp.linspace(-20, 20, 161)
    apply = lambda cap, x: apply_mod(mods.soft_cap(cap), x, jnp.arange(x.size))[0]  # noqa: E731
    curves(a, z, {f"cap {c:g}": apply(c, z) for c in (2.0, 5.0, 10.0)}, "scores before and after", "score", "score'")
    a.plot([-12, 12], [-12, 12], color=GREY, linewidth=0.7)
    row = 4 * jnp.asarray(ROW)
    heights = {"no cap": row, "cap 5": apply(5.0, row)}
    heights = {name: normalizers.softmax()(x[None])[0] for name, x in heights.items()}
    bars(b, heights, [f"{z:g}" for z in row.tolist()], "softmax of one row", "score of the key", "weight")


def temperature(a, b) -> None:
    """Weights of one row at three temperatures, and their entropy over the temperature."""
    apply = lambda t: normalizers.softmax()(apply_mod(mods.temperature(t), jnp.asarray(ROW), jnp.arange(5)))[0]  # noqa: E731
    heights = {f"temperature {t:g}": apply(t) for t in (0.5, 1.0, 4.0)}
    bars(a, heights, [f"{z:g}" for z in ROW], "softmax of one row", "score of the key", "weight")
    many = jnp.asarray(2.0 ** np.linspace(-4, 6, 81), jnp.float32)
    entropy = [-jnp.sum(w * jnp.log(jnp.maximum(w, 1e-30))) for w in map(apply, many)]
    curves(b, many, {"entropy": entropy}, "entropy of these weights", "temperature", "entropy in nats")
    b.axhline(np.round(np.log(5), 4), color=GREY, linewidth=0.8)
    b.annotate("log 5: uniform", (0.07, 1.5), color=GREY)
    b.set_xscale("log", base=2)
