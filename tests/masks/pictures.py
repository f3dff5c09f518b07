"""Masks as pictures: one string per query, `#` where it may attend, `.` where not, as in `Mask.describe`."""

from __future__ import annotations

import jax
import numpy as np

from jax_attention import attention_weights, masks
from tests.support.tolerances import FORWARD

CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}


def picture(mask, T: int, S: int, **where) -> list[str]:
    """What `attend` makes of a mask: the non-zero weights of equal scores."""
    q, k = np.zeros((T, 2), np.float32), np.zeros((S, 2), np.float32)
    weights = jax.jit(attention_weights)(q, k, k, mask=masks.as_mask(mask), **where)
    return ["".join(".#"[int(x > 0)] for x in row) for row in np.asarray(weights)]


def matrix(rows: list[str]) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def jax_nn_picture(T: int, S: int, **options) -> np.ndarray:
    """With one-hot values the output of jax.nn is its weights; it wants values of the keys' size."""
    q, k, one_hot = (np.zeros((n, 1, S), np.float32) for n in (T, S, S))
    one_hot[:, 0] = np.eye(S)
    return np.asarray(jax.jit(lambda: jax.nn.dot_product_attention(q, k, one_hot, **options))()[:, 0] > 0)
