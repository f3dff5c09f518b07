"""Pictures of the position encodings: tables, rotations and buckets."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from matplotlib.ticker import MaxNLocator

from docs._draw.drawing import COLOURS, curves, label, rounded, table
from jax_attention import positions, scores


def sinusoidal(a, b) -> None:
    """The sinusoid table, and the dot products of two positions."""
    code = positions.sinusoidal(jnp.arange(64), 32)
    table(a, code[:24], "size 32, interleaved", "feature", "position", digits=None)
    away = jnp.arange(-32, 32)
    lines = {f"p = {p}": code[p] @ code.T for p in (16, 32)}
    lines = {name: y[jnp.clip(away + int(name[4:]), 0, 63)] for name, y in lines.items()}
    keep = (away >= -16) & (away < 32)
    lines = {name: y[keep] for name, y in lines.items()}
    curves(b, away[keep], lines, "PE(p) · PE(p + d)", "distance d", "dot product")


def rotary(a, b) -> None:
    """One pair of features rotates with the position; scores depend only on the difference of positions."""
    points = rounded(positions.rotary()(jnp.tile(jnp.array([1.0, 0.0]), (6, 1)), jnp.arange(6)))
    for p, (x, y) in enumerate(points):
        a.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": COLOURS[0]})
        a.text(1.28 * x, 1.2 * y, f"p = {p}", ha="center", va="center")
    a.set(xlim=(-1.75, 1.75), ylim=(-1.4, 1.4), aspect="equal")
    label(a, "the first pair of (1, 0) at positions 0 to 5", "feature a", "feature b")
    rope, away, ones = positions.rotary(), jnp.arange(-40, 41), jnp.ones((81, 16))
    for start, style in ((50, "-"), (5000, ":")):
        q = rope(ones[:1], jnp.array([start]))
        y = scores.scaled_dot()(q, rope(ones, start + away))[0]
        b.plot(rounded(away), rounded(y).round(2), style, color=COLOURS[start > 50], label=f"query at {start}")
    b.margins(y=0.2)
    label(b, "q = k = ones, H = 16", "key position - query position", "scaled dot score")
    b.legend()


def learned(a, b) -> None:
    """A learned table, and rows looked up; a row that the table lacks is NaN."""
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), jnp.float32)
    table(a, rows, "table: L = 5, D = 4", "feature", "position")
    looked_up = jnp.array([2, 0, 4, 5])
    table(b, positions.learned(rows, looked_up), "learned(table, [2, 0, 4, 5])", "feature", "position asked for")
    b.set_yticks(np.arange(4) + 0.5, [str(p) for p in looked_up.tolist()])


def t5_buckets(a, b) -> None:
    """T5 has one bucket per distance near the query, then wider and wider ones."""
    relative = jnp.arange(-160, 161)
    for axes, both in ((a, True), (b, False)):
        bucket = positions.t5_buckets(relative, bidirectional=both)
        axes.step(rounded(relative), rounded(bucket), where="mid", color=COLOURS[0])
        label(axes, f"32 buckets, bidirectional={both}", "key position - query position", "bucket")


def alibi_slopes(a, b) -> None:
    """ALiBi slopes lie on a line (log axis) for a power of two; other numbers of heads fill in between."""
    for axes, counts in ((a, (4, 8, 16)), (b, (8, 12))):
        for i, count in enumerate(counts):
            marks = np.arange(count), rounded(jnp.log2(positions.alibi_slopes(count)))
            axes.plot(*marks, "osD"[i], color=COLOURS[i], markersize=7 - 2 * i, label=f"N = {count}")
        label(axes, "powers of two" if axes is a else "not a power of two", "head", "log2 of the slope")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
