"""Pictures of the scores: which keys a query prefers, and how widely the scores spread."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from docs._draw.drawing import bars, curves, plane, table
from jax_attention import normalizers, scores

QUERIES = ((1.2, 0.4), (-0.5, 1.0))


def two_planes(rule, a, b) -> None:
    """Draw one score for two queries."""
    for axes, query in zip((a, b), QUERIES, strict=True):
        plane(axes, rule, query, f"score of every key, query ({query[0]:g}, {query[1]:g})")


def dot(a, b) -> None:
    """The dot score has straight level lines: only the component of the key along the query counts."""
    two_planes(scores.dot(), a, b)


def scaled_dot(a, b) -> None:
    """Spread of the scores, and the largest softmax weight, over the head size."""
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
    """The cosine score has rays as level lines: the length of the key does not count."""
    two_planes(scores.cosine(), a, b)


def general(a, b) -> None:
    """With W a rotation by 90 degrees, the best keys are orthogonal to the query."""
    two_planes(scores.general(jnp.array([[0.0, 1.0], [-1.0, 0.0]])), a, b)


def concat(a, b, c) -> None:
    """The concat score of another query differs by one constant for all keys, which the softmax removes."""
    rule = scores.concat(jnp.array([1.0, 1.0]), jnp.array([0.8, -0.6]))
    two_planes(rule, a, b)
    keys = jnp.asarray([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]])
    weights = normalizers.softmax()(rule(jnp.asarray(QUERIES), keys))
    rows = {f"query ({q[0]:g}, {q[1]:g})": w for q, w in zip(QUERIES, weights, strict=True)}
    bars(c, rows, list("01234"), "softmax weights of five keys", "key", "weight")


def additive(a, b) -> None:
    """The additive score has curved steps whose place depends on the query: the tanh couples query and key."""
    two_planes(scores.additive(2 * jnp.eye(2), -2 * jnp.eye(2), vector=jnp.array([1.0, 1.5])), a, b)


def location(a, b, c) -> None:
    """The location score multiplies the row [q ; k] by W, whose columns are positions."""
    pairs = jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, -1.0]])
    weight = jnp.array([[2.0, 0.0, -1.0, 0.0], [0.0, 2.0, 0.0, -1.0], [0.0, 1.0, 2.0, 1.0]])
    table(a, pairs, "[q ; k], row by row", "feature (2 of q, 1 of k)", "t")
    table(b, weight, "W", "position s", "feature")
    table(c, scores.location(weight)(pairs[:, :2], pairs[:, 2:]), "scores = [q ; k] W", "position s", "t")


def l2(a, b) -> None:
    """The l2 score has circles around the query: near keys score highest, and no score is positive."""
    two_planes(scores.l2(), a, b)


def features(a, b) -> None:
    """Two feature maps for one query: the level lines are those of sums of feature products."""
    plane(a, scores.features("elu_plus_one"), QUERIES[0], "elu_plus_one: score of every key")
    plane(b, scores.features("hedgehog"), QUERIES[0], "hedgehog: score of every key")


def random_features(a, b) -> None:
    """The random-feature estimate along a line of keys, and its error over the number of directions."""
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
