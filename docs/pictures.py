"""One picture per rule, drawn with the library itself: `python -m docs.pictures` writes `docs/rules/img/*.svg`.

About 20 seconds on two CPU cores. The version of matplotlib that drew the files is kept in `docs/rules/img/VERSION`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from docs.drawing import COLOURS, GREY, bars, curves, label, panels, plane, steady, table, who_attends
from jax_attention import masks, mods, normalizers, positions, scores

HERE = Path(__file__).parent
QUERIES = ((1.2, 0.4), (-0.5, 1.0))
ROW = (3.0, 2.0, 1.5, 0.0, -1.0)


def two_planes(rule, a, b) -> None:
    """The same rule for two queries."""
    for axes, query in zip((a, b), QUERIES, strict=True):
        plane(axes, rule, query, f"score of every key, query ({query[0]:g}, {query[1]:g})")


def competition(rules: dict, a, b) -> None:
    """Left: the weights of one row of scores. Right: the weight of one key while its score moves past two rivals."""
    row = jnp.asarray([ROW])
    heights = {name: rule(row)[0] for name, rule in rules.items()}
    bars(a, heights, [f"{z:g}" for z in ROW], "weights of one row of five keys", "score of the key", "weight")
    moving = jnp.linspace(-4, 4, 161)
    rivals = jnp.stack([moving, jnp.zeros(161), jnp.ones(161)], axis=-1)
    lines = {name: rule(rivals)[:, 0] for name, rule in rules.items()}
    curves(b, moving, lines, "weight of a key against rivals at 0 and 1", "score of the key", "weight")


def changed(mod, score: jnp.ndarray, relative: jnp.ndarray) -> jnp.ndarray:
    """What a mod makes of scores `[n]` of a query at 0 and keys at `relative[n]`; one row per leading entry."""
    return mod(score[None], jnp.zeros((1, 1), jnp.int32), relative[None])


# --- scores ---------------------------------------------------------------------------------------------------------


def dot(a, b) -> None:
    """Level lines are straight: only the part of the key along the query counts."""
    two_planes(scores.dot(), a, b)


def scaled_dot(a, b) -> None:
    """Spread of the scores, and what the softmax makes of it, against head size."""
    rng, sizes = np.random.default_rng(0), 2 ** np.arange(2, 10)
    spread, largest = {"dot": [], "scaled_dot": []}, {"dot": [], "scaled_dot": []}
    for size in sizes:
        q, k = jnp.asarray(rng.normal(size=(2, 256, size)), jnp.float32)
        for name, rule in (("dot", scores.dot()), ("scaled_dot", scores.scaled_dot())):
            z = rule(q, k[:32])
            spread[name].append(jnp.std(z))
            largest[name].append(jnp.mean(jnp.max(normalizers.softmax()(z), axis=-1)))
    curves(a, sizes, spread, "normal queries and keys", "head size H", "standard deviation of the scores")
    curves(b, sizes, largest, "32 keys", "head size H", "mean largest softmax weight")
    for axes in (a, b):
        axes.set_xscale("log", base=2)


def cosine(a, b) -> None:
    """Level lines are rays: the length of the key does not count."""
    two_planes(scores.cosine(), a, b)


def general(a, b) -> None:
    """With W a quarter turn, the best keys stand across the query."""
    two_planes(scores.general(jnp.array([[0.0, 1.0], [-1.0, 0.0]])), a, b)


def concat(a, b, c) -> None:
    """Another query adds a constant to all keys; the softmax removes it."""
    rule = scores.concat(jnp.array([1.0, 1.0]), jnp.array([0.8, -0.6]))
    two_planes(rule, a, b)
    keys = jnp.asarray([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]])
    weights = normalizers.softmax()(rule(jnp.asarray(QUERIES), keys))
    rows = {f"query ({q[0]:g}, {q[1]:g})": w for q, w in zip(QUERIES, weights, strict=True)}
    bars(c, rows, list("01234"), "softmax weights of five keys", "key", "weight")


def additive(a, b) -> None:
    """Bent steps whose place depends on the query: the tanh couples the two."""
    two_planes(scores.additive(2 * jnp.eye(2), -2 * jnp.eye(2), vector=jnp.array([1.0, 1.5])), a, b)


def location(a, b, c) -> None:
    """Rows are joined pairs, columns of W are positions."""
    pairs = jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, -1.0]])
    weight = jnp.array([[2.0, 0.0, -1.0, 0.0], [0.0, 2.0, 0.0, -1.0], [0.0, 1.0, 2.0, 1.0]])
    table(a, pairs, "[q ; k], row by row", "feature (2 of q, 1 of k)", "t")
    table(b, weight, "W", "position s", "feature")
    table(c, scores.location(weight)(pairs[:, :2], pairs[:, 2:]), "scores = [q ; k] W", "position s", "t")


def l2(a, b) -> None:
    """Circles around the query: near keys score highest, and no score is positive."""
    two_planes(scores.l2(), a, b)


def features(a, b) -> None:
    """Two maps, one query: level lines of sums of bent features, not of angles."""
    plane(a, scores.features("elu_plus_one"), QUERIES[0], "elu_plus_one: score of every key")
    plane(b, scores.features("hedgehog"), QUERIES[0], "hedgehog: score of every key")


def random_features(a, b) -> None:
    """The estimate along a line of keys, and how its error falls with the number of directions."""
    rng = np.random.default_rng(0)
    rule = lambda *shape: scores.random_features(jnp.asarray(rng.normal(size=(*shape, 4)), jnp.float32))  # noqa: E731
    q, along = jnp.full((1, 4), 0.5), jnp.linspace(-2, 2, 41)
    k = along[:, None] * jnp.full((1, 4), 0.5)
    exact = jnp.exp(scores.scaled_dot()(q, k)[0])
    lines = {"exp(scaled dot)": exact} | {f"F = {count}": rule(count)(q, k)[0] for count in (16, 1024)}
    curves(a, along, lines, "keys along the query", "key = this times the query", "score")
    sizes = 2 ** np.arange(3, 11)
    error = [jnp.mean(abs(rule(200, int(n))(q, k) / exact - 1)) for n in sizes]
    curves(b, sizes, {"error": error}, "mean of 200 draws", "directions F", "relative error of the score")
    b.set_xscale("log", base=2)
    b.set_yscale("log", base=2)


# --- mods -----------------------------------------------------------------------------------------------------------


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


# --- masks: each alone, and joined or aligned differently -------------------------------------------------------------


def causal(a, b) -> None:
    """Aligned at the start, and at the end."""
    who_attends(a, masks.causal())
    who_attends(b, masks.causal(offset=3), queries=5, title="causal(offset=3): 5 queries end with 8 keys")


def sliding_window(a, b) -> None:
    """Three keys, the query included; and one key on each side."""
    who_attends(a, masks.sliding_window(3))
    who_attends(b, masks.sliding_window(2, 1))


def prefix(a, b) -> None:
    """Alone, and joined with a causal mask."""
    who_attends(a, masks.prefix(3))
    who_attends(b, masks.causal() | masks.prefix(3))


def lengths(a, b) -> None:
    """Padding keys, and padding queries too."""
    who_attends(a, masks.lengths(5))
    who_attends(b, masks.lengths(5, 6))


def segments(a, b) -> None:
    """Three packed documents, both ways and causally."""
    packed = masks.segments(jnp.array([0, 0, 0, 1, 1, 1, 1, 2]))
    who_attends(a, packed, title="segments of 3, 4 and 1 tokens")
    who_attends(b, packed & masks.causal(), title="segments & causal()")


def dilated(a, b) -> None:
    """Alone, and joined with a causal mask."""
    who_attends(a, masks.dilated(2))
    who_attends(b, masks.dilated(3) & masks.causal())


def chunked(a, b) -> None:
    """Alone, and joined with a causal mask."""
    who_attends(a, masks.chunked(4))
    who_attends(b, masks.chunked(3) & masks.causal())


def dense(a, b) -> None:
    """A tree, which no rule of positions describes, and one row of padding for all queries."""
    parents = [-1, 0, 0, 1, 1, 2, 2, 5]
    tree = np.eye(8, dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            tree[node] |= tree[parent]
    who_attends(a, masks.dense(tree), title="dense(tree): every node sees its ancestors")
    keep = np.array([[True, True, False, True, True, True, False, False]])
    who_attends(b, masks.dense(keep), title="dense(array of shape [1, 8])")


def block_sparse(a, b) -> None:
    """The grid of blocks, and the pairs that it allows."""
    blocks = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]], bool)
    who_attends(a, masks.dense(blocks), 4, 4, title="blocks")
    label(a, "blocks", "key block (blue: allowed)", "query block")
    who_attends(b, masks.block_sparse(blocks, 2), title="block_sparse(blocks, 2)")


# --- normalizers ------------------------------------------------------------------------------------------------------


def softmax(a, b) -> None:
    """Plain, with 1 in the denominator, and with a sink that takes much."""
    plain, one = normalizers.softmax(), normalizers.softmax(plus_one=True)
    competition({"softmax()": plain, "plus_one=True": one, "sinks=3": normalizers.softmax(3.0)}, a, b)


def sigmoid(a, b) -> None:
    """No competition: the curve of a key does not know its rivals."""
    both = {"sigmoid()": normalizers.sigmoid(), "sigmoid(-log 5)": normalizers.sigmoid(-float(np.log(5)))}
    competition({"softmax()": normalizers.softmax(), **both}, a, b)


def relu(a, b) -> None:
    """Zero below 0, then straight (or a parabola)."""
    both = {"relu()": normalizers.relu(), "relu(power=2)": normalizers.relu(2)}
    competition({"softmax()": normalizers.softmax(), **both}, a, b)


def linear(a, b) -> None:
    """The scores themselves, negative ones too."""
    competition({"softmax()": normalizers.softmax(), "linear(mean=True)": normalizers.linear(mean=True)}, a, b)


def proportional(a, b) -> None:
    """Ratios of scores are ratios of weights."""
    rules = {"softmax()": normalizers.softmax(), "proportional()": normalizers.proportional()}
    row = (3.0, 2.0, 1.5, 0.5, 0.0)
    heights = {name: rule(jnp.asarray([row]))[0] for name, rule in rules.items()}
    bars(a, heights, [f"{z:g}" for z in row], "weights of one row of five keys", "score of the key", "weight")
    moving = jnp.linspace(0, 6, 121)
    rivals = jnp.stack([moving, jnp.full(121, 0.5), jnp.ones(121)], axis=-1)
    lines = {name: rule(rivals)[:, 0] for name, rule in rules.items()}
    curves(b, moving, lines, "weight of a key against rivals at 0.5 and 1", "score of the key", "weight")


def sparsemax(a, b) -> None:
    """Straight pieces, exactly 0 and exactly 1 at the ends."""
    competition({"softmax()": normalizers.softmax(), "sparsemax()": normalizers.sparsemax()}, a, b)


def entmax15(a, b) -> None:
    """Between the other two."""
    between = {"entmax15()": normalizers.entmax15(), "sparsemax()": normalizers.sparsemax()}
    competition({"softmax()": normalizers.softmax(), **between}, a, b)


def uniform(a, b) -> None:
    """Flat."""
    competition({"softmax()": normalizers.softmax(), "uniform()": normalizers.uniform()}, a, b)


def hard(a, b) -> None:
    """A step; its derivative is taken from the softmax."""
    competition({"softmax() (its gradient)": normalizers.softmax(), "hard()": normalizers.hard()}, a, b)


# --- positions --------------------------------------------------------------------------------------------------------


def sinusoidal(a, b) -> None:
    """The table, and how similar two positions are."""
    code = positions.sinusoidal(jnp.arange(64), 32)
    table(a, code[:24], "size 32, interleaved", "feature", "position", digits=None)
    away = jnp.arange(-32, 32)
    lines = {f"p = {p}": code[p] @ code.T for p in (16, 32)}
    lines = {name: y[jnp.clip(away + int(name[4:]), 0, 63)] for name, y in lines.items()}
    keep = (away >= -16) & (away < 32)
    lines = {name: y[keep] for name, y in lines.items()}
    curves(b, away[keep], lines, "PE(p) · PE(p + d)", "distance d", "dot product")


def rotary(a, b) -> None:
    """One pair of features turns with the position; scores see only the difference."""
    turned = steady(positions.rotary()(jnp.tile(jnp.array([1.0, 0.0]), (6, 1)), jnp.arange(6)))
    for p, (x, y) in enumerate(turned):
        a.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": COLOURS[0]})
        a.text(1.28 * x, 1.2 * y, f"p = {p}", ha="center", va="center")
    a.set(xlim=(-1.75, 1.75), ylim=(-1.4, 1.4), aspect="equal")
    label(a, "the first pair of (1, 0) at positions 0 to 5", "feature a", "feature b")
    rope, away, ones = positions.rotary(), jnp.arange(-40, 41), jnp.ones((81, 16))
    for start, style in ((50, "-"), (5000, ":")):
        q = rope(ones[:1], jnp.array([start]))
        y = scores.scaled_dot()(q, rope(ones, start + away))[0]
        b.plot(steady(away), steady(y).round(2), style, color=COLOURS[start > 50], label=f"query at {start}")
    b.margins(y=0.2)
    label(b, "q = k = ones, H = 16", "key position - query position", "scaled dot score")
    b.legend()


def learned(a, b) -> None:
    """The table, and rows looked up; a row that the table lacks is NaN."""
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), jnp.float32)
    table(a, rows, "table: L = 5, D = 4", "feature", "position")
    wanted = jnp.array([2, 0, 4, 5])
    table(b, positions.learned(rows, wanted), "learned(table, [2, 0, 4, 5])", "feature", "position asked for")
    b.set_yticks(np.arange(4) + 0.5, [str(p) for p in wanted.tolist()])


def t5_buckets(a, b) -> None:
    """One bucket per distance near the query, then wider and wider ones."""
    relative = jnp.arange(-160, 161)
    for axes, both in ((a, True), (b, False)):
        bucket = positions.t5_buckets(relative, bidirectional=both)
        axes.step(steady(relative), steady(bucket), where="mid", color=COLOURS[0])
        label(axes, f"32 buckets, bidirectional={both}", "key position - query position", "bucket")


def alibi_slopes(a, b) -> None:
    """Straight on a logarithmic axis for a power of two; other numbers of heads fill in between."""
    for axes, counts in ((a, (4, 8, 16)), (b, (8, 12))):
        for i, count in enumerate(counts):
            marks = np.arange(count), steady(jnp.log2(positions.alibi_slopes(count)))
            axes.plot(*marks, "osD"[i], color=COLOURS[i], markersize=7 - 2 * i, label=f"N = {count}")
        label(axes, "powers of two" if axes is a else "not a power of two", "head", "log2 of the slope")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()


# --- the sentence -----------------------------------------------------------------------------------------------------


def sentence(*axes) -> None:
    """One small example through all five stages."""
    x = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [2.0, 1.0]])
    pos = jnp.arange(4)
    q_pos, k_pos = pos[:, None], pos[None]
    first = scores.scaled_dot()(x, x)
    second = mods.alibi(0.5)(first, q_pos, k_pos)
    where = masks.causal()(q_pos, k_pos)
    weights = normalizers.softmax()(second, where)
    stages = (
        (first, "1 score\nscaled_dot()"),
        (second, "2 modify\nalibi(0.5)"),
        (jnp.where(where, second, jnp.nan), "3 mask\ncausal()"),
        (weights, "4 normalise\nsoftmax()"),
        (weights @ x, "5 combine\nweights @ value"),
    )
    for i, (panel, (array, title)) in enumerate(zip(axes, stages, strict=True)):
        table(panel, array, title, "feature" if i == 4 else "key", "query", digits=1 + (i > 2))


RULES = tuple(rule.__name__ for part in (scores, mods, masks, normalizers, positions) for rule in part.CATALOGUE)
THREE = ("concat", "location", "bias")


def main(root: Path = HERE, suffix: str = ".svg") -> None:
    """Draw all pictures below `root`."""
    for name in RULES:
        panels(globals()[name], root / "rules" / "img" / f"{name}{suffix}", columns=3 if name in THREE else 2)
    panels(sentence, root / "img" / f"sentence{suffix}", columns=5, height=3.0)
    (root / "rules" / "img" / "VERSION").write_text(f"matplotlib {matplotlib.__version__}\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]), *sys.argv[2:3])
