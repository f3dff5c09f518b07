"""No token sees its future, and no document its neighbours: shown by gradients that are exactly 0.

The head is not tied and all tokens of a sequence differ, so the gradient of logits[t] with respect to the embedding row
of token s is the gradient with respect to input s.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import cache, masks, models
from tests.models import small
from tests.support import cases
from tests.support.tiers import slow_except

T = 5
DISTINCT = jnp.asarray([3, 1, 4, 0, 2], jnp.int32)
DIRECTION = jnp.asarray(np.random.default_rng(1).normal(size=small.VOCABULARY), jnp.float32)


@small.jit
def influence(model):
    """The largest entry of the gradient of logits[t] with respect to input s, `[T, T]`."""

    def logits_along_direction(embedding):
        copy = jax.tree.map(lambda x: x, model)
        copy.embedding[...] = embedding
        return copy(DISTINCT).logits @ DIRECTION

    gradient = jax.jacrev(logits_along_direction)(model.embedding[...])
    return jnp.abs(gradient).max(-1)[:, DISTINCT]


def assert_causal(found):
    found = np.asarray(found)
    assert np.all(np.isfinite(found))
    assert np.all(found[np.triu_indices(T, 1)] == 0), found
    assert np.all(np.diag(found) > 1e-6), found


@pytest.mark.parametrize("scheme", slow_except(("t5",), small.SCHEMES))
def test_every_position_scheme(scheme):
    found = influence(small.model(scheme, tied_head=False))
    assert_causal(found)
    assert np.all(found[np.tril_indices(T)] > 1e-7), "two layers reach every earlier token, windows of 3 too"


@pytest.mark.slow
def test_a_scanned_model_is_causal_too():
    assert_causal(influence(models.scan_layers(small.model("rotary", tied_head=False))))


def test_without_a_mask_the_future_is_seen():
    """The method of these tests does find a leak."""
    assert np.all(np.asarray(influence(small.model("none", depth=1, tied_head=False, mask=None))) > 1e-7)


QUICK = ("mask-prefix", "normalize-hard")


@pytest.mark.parametrize(("part", "case"), slow_except(QUICK, cases.named_parts()))
def test_every_rule(part, case, monkeypatch):
    """Every entry of the catalogues, in a causal model."""
    monkeypatch.setattr(cases, "KEY_HEAD", cases.HEAD)
    draw = cases.Draw(np.random.default_rng(7), cases.Shape(T, T), batch_shape=(4,))
    rule = cases.rule_arguments(part, case.build(draw)[0])
    rule["mask"] = masks.causal() & rule["mask"] if part == "mask" else masks.causal()
    found = np.asarray(influence(small.model("none", depth=1, qk_norm=False, tied_head=False, **rule)))
    assert_causal(found)
    if part == "mask":
        allowed = np.broadcast_to(rule["mask"](jnp.arange(T)[:, None], jnp.arange(T)), (4, T, T)).any(0)
        np.testing.assert_array_equal(found > 0, allowed | np.eye(T, dtype=bool))
    else:
        assert found[np.tril_indices(T, -1)].max() > 1e-6, found


# --- Packed documents ------------------------------------------------------------------------------------------------

FIRST, SECOND = np.asarray([3, 1, 4], np.int32), np.asarray([0, 5, 2, 6], np.int32)
PACKED = jnp.asarray(np.concatenate([FIRST, SECOND]))
POSITIONS = jnp.asarray([0, 1, 2, 0, 1, 2, 3], jnp.int32)
SEGMENTS = jnp.asarray([1, 1, 1, 2, 2, 2, 2], jnp.int32)


def mean_loss(logits, targets):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1).mean()


@small.jit
def pack(model, tokens):
    """Logits of packed and separate documents, gradients of the second document's logits, and losses.

    Jitted for any tokens, so that two calls run one program: two traces may be fused, and so rounded, differently.
    """

    def call(embedding, tokens):
        copy = jax.tree.map(lambda x: x, model)
        copy.embedding[...] = embedding
        return copy(tokens, positions=POSITIONS, segment_ids=SEGMENTS).logits

    table = model.embedding[...]
    packed = call(table, tokens)
    gradient = jax.grad(lambda table: (call(table, tokens)[3:] @ DIRECTION).sum())(table)
    separate = [model(x).logits for x in (FIRST, SECOND)]
    inner = jnp.asarray([0, 1, 3, 4, 5])
    losses = [mean_loss(x[:-1], y[1:]) for x, y in zip(separate, (FIRST, SECOND), strict=True)]
    return packed, separate, gradient, mean_loss(packed[inner], PACKED[inner + 1]), losses


@pytest.mark.parametrize("scheme", slow_except(("learned",), small.SCHEMES))
def test_packed_documents_do_not_leak(scheme):
    """Documents in one row must not attend to each other: nanoVLM#204, WrinkleFree#53, nanochat#78."""
    model = small.model(scheme, depth=1, tied_head=False)
    packed, separate, gradient, loss, losses = pack(model, PACKED)
    changed = np.asarray(pack(model, jnp.asarray([7, 8, 9, *SECOND.tolist()], jnp.int32))[0])
    packed = np.asarray(packed)
    np.testing.assert_array_equal(packed[3:], changed[3:])
    assert not np.allclose(packed[:3], changed[:3], atol=1e-2)
    assert np.all(np.asarray(gradient)[FIRST] == 0)
    assert np.all(np.abs(np.asarray(gradient)[SECOND]).max(-1) > 1e-6)
    np.testing.assert_allclose(packed, np.concatenate(separate), **small.CLOSE)
    np.testing.assert_allclose(loss, (2 * losses[0] + 3 * losses[1]) / 5, **small.CLOSE)


def test_no_token_attends_to_padding_under_any_mask():
    """A mask that is not causal allows a token at EMPTY to all; the model hides it."""
    model = small.model("rotary", mask=None, windows=(None,), depth=1)
    row, changed, positions = (np.asarray(x, np.int32) for x in ([1, 2, 3, 4], [1, 2, 9, 4], [0, 1, cache.EMPTY, 2]))
    call = small.jit(lambda row: model(row, positions=positions).logits)
    first, second = np.asarray(call(row)), np.asarray(call(changed))
    np.testing.assert_array_equal(first[[0, 1, 3]], second[[0, 1, 3]])
    assert np.all(np.isfinite(first))
