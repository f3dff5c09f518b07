"""Pictures of the normalizers: the weights of one row, and of one key next to two rivals."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from docs._draw.drawing import bars, curves
from jax_attention import normalizers

ROW = (3.0, 2.0, 1.5, 0.0, -1.0)


def competition(rules: dict, a, b) -> None:
    """Left: the weights of one row of scores. Right: the weight of one key while its score moves past two rivals."""
    row = jnp.asarray([ROW])
    heights = {name: rule(row)[0] for name, rule in rules.items()}
    bars(a, heights, [f"{z:g}" for z in ROW], "weights of one row of five keys", "score of the key", "weight")
    moving = jnp.linspace(-4, 4, 161)
    rivals = jnp.stack([moving, jnp.zeros(161), jnp.ones(161)], axis=-1)
    lines = {name: rule(rivals)[:, 0] for name, rule in rules.items()}
    curves(b, moving, lines, "weight of a key against rivals at 0 and 1", "score of the key", "weight")


def softmax(a, b) -> None:
    """Softmax alone, with 1 in the denominator, and with a sink that takes most of the weight."""
    plain, one = normalizers.softmax(), normalizers.softmax(plus_one=True)
    competition({"softmax()": plain, "plus_one=True": one, "sinks=3": normalizers.softmax(3.0)}, a, b)


def sigmoid(a, b) -> None:
    """Sigmoid weights do not compete: the curve of a key ignores its rivals."""
    both = {"sigmoid()": normalizers.sigmoid(), "sigmoid(-log 5)": normalizers.sigmoid(-float(np.log(5)))}
    competition({"softmax()": normalizers.softmax(), **both}, a, b)


def relu(a, b) -> None:
    """ReLU weights are 0 below 0, then a line (or a parabola)."""
    both = {"relu()": normalizers.relu(), "relu(power=2)": normalizers.relu(2)}
    competition({"softmax()": normalizers.softmax(), **both}, a, b)


def linear(a, b) -> None:
    """Linear weights are the scores themselves, negative ones too."""
    competition({"softmax()": normalizers.softmax(), "linear(mean=True)": normalizers.linear(mean=True)}, a, b)


def proportional(a, b) -> None:
    """Proportional weights have the ratios of the scores."""
    rules = {"softmax()": normalizers.softmax(), "proportional()": normalizers.proportional()}
    row = (3.0, 2.0, 1.5, 0.5, 0.0)
    heights = {name: rule(jnp.asarray([row]))[0] for name, rule in rules.items()}
    bars(a, heights, [f"{z:g}" for z in row], "weights of one row of five keys", "score of the key", "weight")
    moving = jnp.linspace(0, 6, 121)
    rivals = jnp.stack([moving, jnp.full(121, 0.5), jnp.ones(121)], axis=-1)
    lines = {name: rule(rivals)[:, 0] for name, rule in rules.items()}
    curves(b, moving, lines, "weight of a key against rivals at 0.5 and 1", "score of the key", "weight")


def sparsemax(a, b) -> None:
    """Sparsemax is piecewise linear, with exact 0 and exact 1 at the ends."""
    competition({"softmax()": normalizers.softmax(), "sparsemax()": normalizers.sparsemax()}, a, b)


def entmax15(a, b) -> None:
    """Entmax 1.5 lies between softmax and sparsemax."""
    between = {"entmax15()": normalizers.entmax15(), "sparsemax()": normalizers.sparsemax()}
    competition({"softmax()": normalizers.softmax(), **between}, a, b)


def uniform(a, b) -> None:
    """Uniform weights do not depend on the scores."""
    competition({"softmax()": normalizers.softmax(), "uniform()": normalizers.uniform()}, a, b)


def hard(a, b) -> None:
    """Hard attention is a step; its gradient is that of the softmax."""
    competition({"softmax() (its gradient)": normalizers.softmax(), "hard()": normalizers.hard()}, a, b)
