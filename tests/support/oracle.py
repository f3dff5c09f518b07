"""Attention in plain Python loops over float64 numbers, to which every implementation is compared.

It shares no code with the library and imports nothing from it. Each part of a rule is a function:

    score(query, key, t, s) -> float                      mask(t, s, q_pos, k_pos) -> bool
    mod(z, t, s, q_pos, k_pos) -> float                   normalizer(list of allowed scores) -> list of weights

where `t, s` are row numbers and `q_pos, k_pos` the positions of the two rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Answer(NamedTuple):
    """Output `[T, E]`, weights `[T, S]`, and the row statistics `[T]`."""

    output: np.ndarray
    weights: np.ndarray
    logsumexp: np.ndarray
    max_score: np.ndarray
    entropy: np.ndarray


def attend(query, key, value, *, score, mods=(), mask=None, normalize=None, query_positions=None, key_positions=None):
    """The attention formula for one head: `query[T, H]`, `key[S, Hk]`, `value[S, E]`."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    rows, columns = len(query), len(value)
    q_pos = range(rows) if query_positions is None else [int(p) for p in query_positions]
    k_pos = range(columns) if key_positions is None else [int(p) for p in key_positions]
    normalize = normalize or softmax()
    weights, statistics = np.zeros((rows, columns)), np.zeros((rows, 3))
    for t in range(rows):
        scores = {}
        for s in range(columns):
            if mask is None or mask(t, s, q_pos[t], k_pos[s]):
                z = score(query, key, t, s)
                for mod in mods:
                    z = mod(z, t, s, q_pos[t], k_pos[s])
                if z != -math.inf:
                    scores[s] = z
        row = normalize(list(scores.values())) if scores else []
        for s, w in zip(scores, row, strict=True):
            weights[t, s] = w
        statistics[t] = _logsumexp(scores.values()), max(scores.values(), default=-math.inf), _entropy(row)
    output = np.zeros((rows, value.shape[1]))
    for t in range(rows):
        for s in range(columns):
            for e in range(value.shape[1]):
                if weights[t, s] != 0:
                    output[t, e] += weights[t, s] * value[s, e]
    return Answer(output, weights, *statistics.T)


def _logsumexp(scores):
    top = max(scores, default=-math.inf)
    return top if top == -math.inf else top + math.log(math.fsum(math.exp(z - top) for z in scores))


def _entropy(weights):
    return -math.fsum(w * math.log(w) for w in weights if w > 0)


def _inner(a, b):
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


# Scores


def dot():
    return lambda query, key, t, s: _inner(query[t], key[s])


def scaled_dot(scale=None):
    return lambda query, key, t, s: _inner(query[t], key[s]) * (len(query[t]) ** -0.5 if scale is None else scale)


def cosine(scale):
    def score(query, key, t, s):
        lengths = math.sqrt(_inner(query[t], query[t])) * math.sqrt(_inner(key[s], key[s]))
        return scale * _inner(query[t], key[s]) / lengths if lengths else 0.0

    return score


def general(weight):
    return lambda query, key, t, s: math.fsum(
        query[t][i] * weight[i][j] * key[s][j] for i in range(len(query[t])) for j in range(len(key[s]))
    )


def concat(query_weight, key_weight, bias):
    return lambda query, key, t, s: _inner([*query_weight, *key_weight], [*query[t], *key[s]]) + bias


def additive(query_weight, key_weight, bias=None, vector=None):
    """The concatenated vector [q; k] times the stacked matrix, tanh, and a weighted (or plain) sum."""
    stacked = [*query_weight, *key_weight]

    def score(query, key, t, s):
        concatenated, total = [*query[t], *key[s]], []
        for a in range(len(stacked[0])):
            hidden = math.tanh(_inner(concatenated, [row[a] for row in stacked]) + (0.0 if bias is None else bias[a]))
            total.append(hidden * (1.0 if vector is None else vector[a]))
        return math.fsum(total)

    return score


def location(weight, bias=None):
    return lambda query, key, t, s: (
        _inner([*query[t], *key[t]], [row[s] for row in weight]) + (0.0 if bias is None else bias[s])
    )


def l2(scale):
    return lambda query, key, t, s: -scale * math.fsum((a - b) ** 2 for a, b in zip(query[t], key[s], strict=True))


def features(name):
    feature_map = {
        "elu_plus_one": lambda x: [1 + a if a > 0 else math.exp(a) for a in x],
        "relu": lambda x: [max(a, 0.0) for a in x],
        "hedgehog": lambda x: [math.exp(sign * a) for sign in (1, -1) for a in x],
        "squares": lambda x: [a * b for a in x for b in x],
    }[name]
    return lambda query, key, t, s: _inner(feature_map(query[t]), feature_map(key[s]))


def random_features(directions):
    """The mean over directions w of exp(w . (q + k) - (|q|^2 + |k|^2) / 2), q and k divided by the root of sqrt(H)."""

    def score(query, key, t, s):
        root = len(query[t]) ** 0.25
        q, k = ([a / root for a in x] for x in (query[t], key[s]))
        query_plus_key, square = [a + b for a, b in zip(q, k, strict=True)], _inner(q, q) + _inner(k, k)
        return math.fsum(math.exp(_inner(w, query_plus_key) - square / 2) for w in directions) / len(directions)

    return score


# Mods


def bias(array):
    def entry(t, s):
        return array[t if len(array) > 1 else 0][s if len(array[0]) > 1 else 0]

    return lambda z, t, s, q_pos, k_pos: z + entry(t, s)


def alibi(slope):
    return lambda z, t, s, q_pos, k_pos: z - slope * abs(q_pos - k_pos)


def relative(table, bidirectional=True, max_distance=128):
    return lambda z, t, s, q_pos, k_pos: z + table[t5_bucket(k_pos - q_pos, len(table), bidirectional, max_distance)]


def t5_bucket(offset, buckets, bidirectional, max_distance):
    """T5's bucket in exact integer arithmetic.

    floor((B - m) log(n / m) / log(M / m)) is the largest j with (n / m)^(B - m) >= (M / m)^j.
    """
    first = 0
    if bidirectional:
        buckets //= 2
        first, distance = (buckets if offset > 0 else 0), abs(offset)
    else:
        distance = max(-offset, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    steps, j = buckets - exact, 0
    while j + 1 < steps and distance**steps * exact ** (j + 1) >= max_distance ** (j + 1) * exact**steps:
        j += 1
    return first + exact + j


def soft_cap(cap):
    return lambda z, t, s, q_pos, k_pos: cap * math.tanh(z / cap)


def temperature(number):
    return lambda z, t, s, q_pos, k_pos: z / number


# Masks


def causal(offset=0):
    return lambda t, s, q_pos, k_pos: k_pos - q_pos <= offset


def sliding_window(left, right=0, offset=0):
    def mask(t, s, q_pos, k_pos):
        centre = q_pos + offset
        near_enough = left is None or centre - k_pos < left
        return near_enough and (right is None or k_pos - centre <= right)

    return mask


def prefix(length):
    return lambda t, s, q_pos, k_pos: k_pos < length


def lengths(key_length=None, query_length=None):
    return lambda t, s, q_pos, k_pos: (
        (key_length is None or k_pos < key_length) and (query_length is None or q_pos < query_length)
    )


def segments(query_ids, key_ids):
    return lambda t, s, q_pos, k_pos: query_ids[t] == key_ids[s]


def dilated(step):
    return lambda t, s, q_pos, k_pos: (q_pos - k_pos) % step == 0


def chunked(size):
    return lambda t, s, q_pos, k_pos: math.floor(q_pos / size) == math.floor(k_pos / size)


def dense(array):
    return lambda t, s, q_pos, k_pos: bool(array[t if len(array) > 1 else 0][s if len(array[0]) > 1 else 0])


def block_sparse(blocks, size):
    def mask(t, s, q_pos, k_pos):
        row, column = math.floor(q_pos / size), math.floor(k_pos / size)
        return 0 <= row < len(blocks) and 0 <= column < len(blocks[0]) and bool(blocks[row][column])

    return mask


# Normalizers: a list of the allowed scores of one row, never empty, gives as many weights


def softmax(sink=None):
    def normalize(scores):
        top = max([*scores] if sink is None else [*scores, sink])
        total = math.fsum(math.exp(z - top) for z in scores) + (0.0 if sink is None else math.exp(sink - top))
        return [math.exp(z - top) / total for z in scores]

    return normalize


def plus_one():
    """exp(z) / (1 + sum exp(z)), without a row maximum, since the scores of tests are too small to overflow."""
    return lambda scores: [math.exp(z) / (1 + math.fsum(map(math.exp, scores))) for z in scores]


def sigmoid(shift=0.0):
    return lambda scores: [1 / (1 + math.exp(-(z + shift))) for z in scores]


def relu(power=1, mean=True):
    return lambda scores: [max(z, 0.0) ** power / (len(scores) if mean else 1) for z in scores]


def linear(mean=False):
    return lambda scores: [z / (len(scores) if mean else 1) for z in scores]


def proportional(eps=0.0):
    def normalize(scores):
        total = math.fsum(scores) + eps
        return [z / total if total else 0.0 for z in scores]

    return normalize


def uniform():
    return lambda scores: [1 / len(scores)] * len(scores)


def hard():
    return lambda scores: [float(z == max(scores)) / scores.count(max(scores)) for z in scores]


def sparsemax():
    return lambda scores: _bisect(scores, 1)


def entmax15():
    return lambda scores: _bisect([z / 2 for z in scores], 2)


def _bisect(scores, power):
    """(z - tau)+ ** power, where bisection down to rounding finds the tau for which the sum is 1."""
    low, high = max(scores) - 1, max(scores)
    while True:
        middle = (low + high) / 2
        if middle in (low, high) or high - low < 1e-15:
            return [max(z - middle, 0.0) ** power for z in scores]
        if math.fsum(max(z - middle, 0.0) ** power for z in scores) >= 1:
            low = middle
        else:
            high = middle
