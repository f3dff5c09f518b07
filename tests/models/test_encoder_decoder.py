"""Encoder–decoders: the memory, padding, layouts, captures, causality and derivatives."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jax_attention import attend_heads, models, normalizers, scores
from jax_attention.cache import EMPTY
from tests.models import small
from tests.models.pairs import KINDS, SOURCE, TARGET, D, S, T, logits, pair, pair_config
from tests.support.tiers import slow, slow_except

ONE = slow_except(("post-norm, learned",), KINDS)
"""This kind compiles fastest; each of the others takes seconds more, and runs in test_encoder_decoder_use.py."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ONE)
def test_batch_dimensions_and_padding_change_nothing(kind):
    """Every row equals the row in the batch; padding may hold any token, even one whose embedding is NaN."""
    right = jnp.array([[0, 1, 2, 3, 4], [0, 1, 2, EMPTY, EMPTY]])
    left = jnp.array([[0, 1, 2, 3, 4], [EMPTY, EMPTY, 0, 1, 2]])
    rolled = jnp.stack([SOURCE[0], jnp.roll(SOURCE[1], 2)])

    @small.jit
    def run(model):
        invalid = jnp.where(right == EMPTY, -1, SOURCE)
        return (
            model(SOURCE, TARGET).logits,
            model(SOURCE[0], TARGET[0]).logits,
            model(SOURCE[1, :3], TARGET[1]).logits,
            model(SOURCE[None], TARGET[None]).logits,
            model(invalid, TARGET, source_positions=right).logits,
            model(rolled, TARGET, source_positions=left).logits,
        )

    together, first, shorter, nested, padded, from_left = run(pair(kind))
    np.testing.assert_allclose(first, together[0], **small.CLOSE)
    np.testing.assert_allclose(nested[0], together, **small.CLOSE)
    np.testing.assert_allclose(padded, jnp.stack([first, shorter]), **small.CLOSE)
    np.testing.assert_allclose(from_left, jnp.stack([first, shorter]), **small.CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_layouts_remat_and_captures_agree(kind):
    model, capture = pair(kind), models.Capture("all", (-1,), "all")
    stacked = models.scan_layers(model)
    assert stacked.config.scan
    assert stacked.decoder.config.scan
    assert len(stacked.decoder.blocks.scanned) > 0
    remat_config = dataclasses.replace(
        stacked.config, decoder=dataclasses.replace(stacked.config.decoder, remat="full")
    )
    full = jax.tree.map(lambda x: x, stacked)
    full.config, full.decoder.config = remat_config, remat_config.decoder

    def loss(model):
        out = model(SOURCE, TARGET, capture=capture)
        return jnp.sum(jnp.sin(out.logits)), out

    @small.jit
    def run(*models):
        return [jax.grad(loss, has_aux=True)(model) for model in models]

    (gradient, expected), *others = run(model, stacked, full)
    for other, out in others:
        small.assert_trees_close((out.logits, out.captured), (expected.logits, expected.captured), **small.CLOSE)
        unrolled = models.to_dict(models.unroll_layers(other))
        small.assert_trees_close(unrolled, models.to_dict(gradient), **small.CLOSE_GRADIENT)
    small.assert_trees_close(models.unroll_layers(stacked), model)
    np.testing.assert_array_equal(logits(model, SOURCE, TARGET), expected.logits)
    assert sorted(expected.captured.cross) == list(range(model.config.decoder.depth))
    for maps in expected.captured.cross.values():
        assert maps.shape == (2, 4, T, S)
        np.testing.assert_allclose(maps.sum(-1), np.ones((2, 4, T)), **small.CLOSE)


def test_cross_attention_is_the_rule_over_the_memory():
    """Written out with the parts that cross-attention uses: score, cap, normalizer; no mask, no positions, no mods."""
    capture = models.Capture(hidden=(-1, 0))

    def by_hand(model, states, x):
        block = model.decoder.blocks.rest[0]
        cap = block.mods[-1].value
        x = x + block.attention(block.attention_norm(x), mods=(*model.decoder.shared_mods(), cap))
        projections = block.cross.projections
        q, k, v = (
            layer(y).reshape(2, -1, heads, 4)
            for layer, y, heads in (
                (projections.query, block.cross_norm(x), 4),
                (projections.key, states, 2),
                (projections.value, states, 2),
            )
        )
        q, k = block.cross.query_norm(q), block.cross.key_norm(k)
        rule = {"score": scores.scaled_dot(1.0), "mods": (cap,), "normalize": normalizers.sparsemax()}
        x = x + block.cross.out(attend_heads(q, k, v, **rule).reshape(2, T, D))
        return x + block.feed_forward(block.feed_forward_norm(x))

    @small.jit
    def run(model):
        hidden = model(SOURCE, TARGET, capture=capture).captured.hidden
        return by_hand(model, model.encode(SOURCE), hidden[-1]), hidden[0]

    np.testing.assert_allclose(*run(pair("t5, another rule, groups", depth=1)), **small.CLOSE)


@pytest.mark.parametrize("depth", [1, *slow(3)])
def test_a_token_never_sees_later_ones_and_always_the_source(depth):
    model = pair("sandwich, rotary", depth=depth)

    def through(shift):
        """Hidden states with a shift of every target embedding; the derivative shows which token depends on which."""
        decoder = model.decoder
        hidden = decoder.embedding[...][TARGET[0]] * 1.0 + shift
        memory = decoder.project_memory(model.encode(SOURCE[0]))
        return decoder.stack(hidden, memory)

    def from_source(x):
        return model.decoder(TARGET[0], memory=model.decoder.project_memory(x)).logits

    run = small.jit(lambda: (jax.jacobian(through)(jnp.zeros((T, D))), jax.jacobian(from_source)(jnp.ones((S, D)))))
    reach, of_source = (np.abs(jacobian).max(axis=(1, 3)) for jacobian in map(np.asarray, run()))
    assert np.all(reach[np.triu_indices(T, 1)] == 0)
    assert np.all(np.diag(reach) > 0)
    assert np.all(of_source > 0)


@pytest.mark.slow
def test_a_shared_table_gets_the_gradients_of_encoder_and_decoder():
    model = pair("post-norm, learned", depth=1)
    config = dataclasses.replace(model.config, shared_embedding=False)
    separate = jax.tree.map(lambda x: x, model)
    separate.encoder.embedding, separate.config = model.decoder.embedding, config

    def loss(model):
        return jnp.sum(jnp.sin(model(SOURCE, TARGET).logits))

    one, two = small.jit(jax.grad(loss))(model), small.jit(jax.grad(loss))(separate)
    assert model.encoder.embedding is None
    both = two.encoder.embedding[...] + two.decoder.embedding[...]
    np.testing.assert_allclose(one.decoder.embedding[...], both, **small.CLOSE_GRADIENT)


@pytest.mark.slow
def test_derivatives_of_second_order():
    config = pair_config("t5, another rule, groups", depth=1, width=4, num_heads=2, ff_size=5, vocab_size=7)
    config = dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, depth=1),
        decoder=dataclasses.replace(config.decoder, kv_heads=1, normalize=None, memory_size=4),
    )
    model = small.filled(lambda: models.create(config))
    source, target = SOURCE[0, :3] % 7, TARGET[0, :2] % 7
    call = jax.jit(lambda params: jnp.sum(jnp.sin(models.EncoderDecoder.__call__(params, source, target).logits)))
    check_grads(call, (model,), order=2, modes=("fwd", "rev"), rtol=2e-2, atol=2e-2)
