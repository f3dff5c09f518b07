"""Small systems of the tutorials, with the numbers that the tutorials give: A1, B1–B4, B6, B7, C1, E2.

A2, A5, B5 and E3 have parameters; `tests/nn/` tests them with the Flax modules.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_attention import attend, attend_heads, attention_weights, mods, positions, scores
from tests.support.tolerances import FORWARD, PARITY

CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
PEER = {"rtol": PARITY, "atol": PARITY}


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# --- A1: every word looks at the others, without any parameter -------------------------------------------------------


def test_a1_parameter_free_self_attention():
    x = normal(0, 5, 4)
    np.testing.assert_allclose(attend(x, x, x, score=scores.dot()), softmax(x @ x.T) @ x, **CLOSE)


# --- B1: concat, linear, softmax -------------------------------------------------------------------------------------

HQ, HK, T, S = 3, 2, 4, 6


def test_b1_location_attention_pairs_rows():
    q, k, v, w, b = normal(1, T, HQ), normal(2, T, HK), normal(3, S, 5), normal(4, HQ + HK, S), normal(5, S)
    rule = scores.location(w, b)
    expected = softmax(np.concatenate([q, k], -1) @ w + b)
    np.testing.assert_allclose(attention_weights(q, k, v, score=rule), expected, **CLOSE)
    np.testing.assert_allclose(attend(q, k, v, score=rule), expected @ v, **CLOSE)
    new_weights = attention_weights(q, jnp.asarray(k).at[1].add(1.0), v, score=rule)
    rows_changed = np.any(np.abs(new_weights - expected) > 1e-3, axis=-1)
    assert rows_changed.tolist() == [False, True, False, False], "key row t belongs to query row t"


def test_b1_with_a_score_per_pair_ignores_the_query():
    q, k, v, w = normal(6, T, HQ), normal(7, S, HK), normal(8, S, 5), normal(9, HQ + HK)
    rule = scores.concat(w[:HQ], w[HQ:], bias=0.3)
    pairs = np.array([[np.concatenate([q[t], k[s]]) @ w + 0.3 for s in range(S)] for t in range(T)])
    np.testing.assert_allclose(rule(q, k), pairs, **CLOSE)
    weights = attention_weights(q, k, v, score=rule)
    np.testing.assert_allclose(weights, np.broadcast_to(weights[:1], (T, S)), **CLOSE)
    np.testing.assert_allclose(weights[0], softmax(k @ w[HQ:]), **CLOSE)


def test_b1_with_a_score_per_pair_has_query_gradient_zero(x64):
    """d w_ts / d a_t = w_ts (1 - sum_r w_tr) = 0: exactly if the weights are exact, otherwise up to rounding."""
    q, v = np.arange(12.0).reshape(T, HQ), np.arange(20.0).reshape(4, 5) ** 2
    cotangent = np.arange(20.0).reshape(T, 5)[::-1]

    @jax.jit
    @jax.grad
    def gradient_of_loss(q, k):
        rule = scores.concat(jnp.ones(HQ), jnp.ones(HK))
        return jnp.sum(cotangent * attend(q, k, v, score=rule))

    assert np.all(gradient_of_loss(q, np.zeros((4, HK))) == 0)
    gradient = gradient_of_loss(q, normal(10, 4, HK).astype(np.float64))
    assert np.max(np.abs(gradient)) < FORWARD["float64"] * np.abs(v).max()


# --- B2: concat, linear, tanh, sum -----------------------------------------------------------------------------------


@pytest.mark.parametrize("learned", [False, True], ids=["sum", "vector"])
def test_b2_equals_the_linear_layer_of_concatenated_vectors(learned):
    q, k, v, w, b = normal(11, T, HQ), normal(12, S, HK), normal(13, S, 5), normal(14, HQ + HK, 7), normal(15, 7)
    vector = normal(16, 7) if learned else None
    pairs = np.concatenate([np.repeat(q[:, None], S, 1), np.repeat(k[None], T, 0)], -1)
    expected = np.tanh(pairs @ w + b) @ (np.ones(7) if vector is None else vector)
    rule = scores.additive(w[:HQ], w[HQ:], b, vector)
    np.testing.assert_allclose(rule(q, k), expected, **CLOSE)
    np.testing.assert_allclose(attend(q, k, v, score=rule), softmax(expected) @ v, **CLOSE)
    weights = attention_weights(q, k, v, score=rule)
    assert np.max(np.abs(weights - weights[:1])) > 1e-2, "the tanh lets the query matter, unlike B1"


# --- B3, B4: scaled dot product, batched product ---------------------------------------------------------------------


def test_b3_scaled_dot_product_against_numpy_and_torch():
    q, k, v = normal(17, 2, T, 8), normal(18, 2, S, 8), normal(19, 2, S, 5)
    jax_output = attend(q, k, v)
    np.testing.assert_allclose(jax_output, softmax(q @ k.swapaxes(1, 2) / np.sqrt(8)) @ v, **CLOSE)
    torch_output = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)))
    np.testing.assert_allclose(jax_output, torch_output.numpy(), **PEER)


def test_b4_batched_product_is_vmap_of_the_product():
    a, b = normal(20, 10, 3, 4), normal(21, 10, 4, 5)
    product = jax.vmap(jnp.matmul)(a, b)
    assert product.shape == (10, 3, 5)
    np.testing.assert_allclose(product, jnp.einsum("bnm,bmp->bnp", a, b), **PEER)
    np.testing.assert_allclose(product, torch.bmm(torch.from_numpy(a), torch.from_numpy(b)).numpy(), **PEER)
    batched = jax.jit(jax.vmap(attend))(a, a, b[:, :3])
    np.testing.assert_allclose(batched, jax.jit(attend)(a, a, b[:, :3]), **CLOSE)


# --- B6: soft lookup -------------------------------------------------------------------------------------------------


def test_b6_a_question_changes_the_weights():
    """Keys are feature vectors (alive, built, weather); without a question the weights are the saliencies."""
    things = ["tree", "clock tower", "snow", "person", "road"]
    saliency = np.array([90, 80, 50, 50, 20], np.float32)
    features = np.array([[0.8, 0, 0.2], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0.9, 0.1]], np.float32)
    names = np.eye(5, dtype=np.float32)
    prior = mods.bias(np.log(saliency)[None])
    without_question = attend(np.zeros((1, 3), np.float32), features, names, mods=(prior,))[0]
    np.testing.assert_allclose(without_question, saliency / saliency.sum(), **CLOSE)
    living = np.array([[1, 0, 0]], np.float32)
    with_question = attend(living, features, names, score=scores.scaled_dot(8.0), mods=(prior,))[0]
    assert {things[i] for i in np.argsort(-with_question)[:2]} == {"person", "tree"}
    assert with_question[0] + with_question[3] > 0.95
    assert without_question[0] + without_question[3] < 0.5


def test_b6_a_shop_finds_the_title_that_matches():
    """Features: running, breathable, shoe, heel, warm, bag."""
    titles = ["breathable running shoes", "high heels", "winter boots", "leather bag"]
    keys = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 1]], np.float32)
    prices = np.array([[60.0], [90.0], [120.0], [200.0]], np.float32)
    query = np.array([[1, 1, 1, -1, 0, 0]], np.float32)
    rule = scores.scaled_dot(1.5)
    weights = dict(zip(titles, attention_weights(query, keys, prices, score=rule)[0].tolist(), strict=True))
    assert max(weights, key=weights.get) == "breathable running shoes"
    assert weights["breathable running shoes"] > 0.9
    assert weights["high heels"] < 0.02
    assert attend(query, keys, prices, score=rule)[0, 0] == pytest.approx(60, abs=10)


# --- B7: self-attention in eight steps -------------------------------------------------------------------------------

B7_OUTPUTS = {
    "dot": [[1.9366, 6.6831, 1.5951], [2.0000, 7.9640, 0.0540], [1.9997, 7.7599, 0.3584]],
    "scaled_dot": [[1.8639, 6.3194, 1.7042], [1.9991, 7.8141, 0.2735], [1.9926, 7.4796, 0.7359]],
}


@pytest.mark.parametrize("rule", B7_OUTPUTS)
def test_b7_eight_steps(rule):
    x = np.array([[1, 0, 1, 0], [0, 2, 0, 2], [1, 1, 1, 1]], np.float32)
    key = x @ np.array([[0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 1, 0]], np.float32)
    query = x @ np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 1]], np.float32)
    value = x @ np.array([[0, 2, 0], [0, 3, 0], [1, 0, 3], [1, 1, 0]], np.float32)
    assert key.tolist() == [[0, 1, 1], [4, 4, 0], [2, 3, 1]]
    assert query.tolist() == [[1, 0, 2], [2, 2, 2], [2, 1, 3]]
    assert value.tolist() == [[1, 2, 3], [2, 8, 0], [2, 6, 3]]
    assert scores.dot()(jnp.asarray(query), jnp.asarray(key)).tolist() == [[2, 4, 4], [4, 16, 12], [4, 12, 10]]
    output = attend(query, key, value, score=getattr(scores, rule)())
    assert np.round(np.asarray(output, np.float64), 4).tolist() == B7_OUTPUTS[rule]


# --- C1: dot and cosine similarity -----------------------------------------------------------------------------------


def tensorflow_arithmetic(q, k, v, cosine: bool) -> np.ndarray:
    """`tf.nn.l2_normalize`, `tf.matmul(..., transpose_b=True)` and `tf.nn.softmax(axis=-1)`, in float32 NumPy."""
    size = q.shape[-1]
    if cosine:
        q, k = (x / np.sqrt(np.maximum((x * x).sum(-1, keepdims=True), 1e-12)) for x in (q, k))
    return softmax(np.matmul(q, np.swapaxes(k, -1, -2)) / np.sqrt(np.float32(size))) @ v


def torch_arithmetic(q, k, v, cosine: bool) -> np.ndarray:
    q, k, v = map(torch.from_numpy, (q, k, v))
    similarity = torch.cosine_similarity(q[..., :, None, :], k[..., None, :, :], dim=-1) if cosine else q @ k.mT
    return (torch.softmax(similarity / q.shape[-1] ** 0.5, -1) @ v).numpy()


@pytest.mark.parametrize("cosine", [False, True], ids=["dot", "cosine"])
def test_c1_similarities_of_a_decoder(cosine):
    q, k, v = normal(22, 1, 5, 10), normal(23, 1, 5, 10), normal(24, 1, 5, 10)
    jax_output = attend(q, k, v, score=scores.cosine(10**-0.5) if cosine else scores.scaled_dot())
    assert jax_output.shape == (1, 5, 10)
    np.testing.assert_allclose(jax_output, tensorflow_arithmetic(q, k, v, cosine), **PEER)
    np.testing.assert_allclose(jax_output, torch_arithmetic(q, k, v, cosine), **PEER)


# --- E2: position information, shape unchanged -----------------------------------------------------------------------

ROWS = np.arange(6)
ADDED = {
    "sinusoidal": lambda x: x + positions.sinusoidal(ROWS, x.shape[-1]),
    "learned": lambda x: x + positions.learned(normal(25, 9, x.shape[-1]), ROWS),
}


@pytest.mark.parametrize("kind", ADDED)
def test_e2_added_to_the_embeddings(kind):
    x = normal(26, 2, 6, 8)
    encoded = ADDED[kind](x)
    assert encoded.shape == x.shape
    assert encoded.dtype == x.dtype
    np.testing.assert_allclose(encoded - x, np.broadcast_to(encoded[:1] - x[:1], x.shape), **CLOSE)
    assert len(np.unique(np.round(encoded[0] - x[0], 4), axis=0)) == 6, "no two positions have the same encoding"


def attends(kind: str, x):
    if kind in ADDED:
        encoded = ADDED[kind](x)
        return attend(encoded, encoded, x)
    if kind == "rotary":
        encoded = positions.rotary()(x, ROWS)
        assert encoded.shape == x.shape
        return attend(encoded, encoded, x)
    if kind == "alibi":
        x = jnp.asarray(x).reshape(2, 6, 2, 4)
        return attend_heads(x, x, x, mods=(mods.alibi(positions.alibi_slopes(2)),)).reshape(2, 6, 8)
    return attend(x, x, x)


@pytest.mark.parametrize("kind", ["sinusoidal", "learned", "rotary", "alibi", "none"])
def test_e2_order_matters_exactly_with_position_information(kind):
    """Without position information attention is equivariant: reversed words give a reversed output."""
    x = normal(27, 2, 6, 8)
    run = jax.jit(lambda x: attends(kind, x))
    output, reversed_output = run(x), np.asarray(run(x[:, ::-1]))[:, ::-1]
    assert output.shape == x.shape
    if kind in ("none", "alibi"):  # |q - k| is the same from both ends
        np.testing.assert_allclose(output, reversed_output, **CLOSE)
    else:
        assert np.max(np.abs(output - reversed_output)) > 1e-2
    shuffled = np.array([2, 0, 1, 5, 3, 4])
    change = np.max(np.abs(run(x[:, shuffled]) - np.asarray(output)[:, shuffled]))
    assert (change < FORWARD["float32"]) == (kind == "none")


def test_e2_rotary_scores_depend_on_differences_only():
    q, k = normal(28, 6, 8), normal(29, 6, 8)
    rope = positions.rotary()
    near, far = (scores.dot()(rope(q, ROWS + n), rope(k, ROWS + n)) for n in (0, 1000))
    np.testing.assert_allclose(near, far, **CLOSE)
