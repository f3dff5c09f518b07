"""Scores divided by the number of their layer: by hand, in both layouts, with a cache, under remat, with a memory."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jax_attention import masks, models, mods
from tests.models import small

TOKENS, D = small.tokens(2, 7), 16


def by_hand(model, tokens):
    x = model.embedding[...][tokens] + model.position[...][: tokens.shape[-1]]
    for layer, block in enumerate(model.blocks.rest):
        scale = (mods.temperature(layer + 1.0),)
        x = x + block.attention(block.attention_norm(x), mods=scale)
        x = x + block.feed_forward(block.feed_forward_norm(x))
    return model.unembed(model.final_norm(x))


def test_every_layout_and_the_cache_scale_as_by_hand():
    model = small.model("learned", depth=3, scale_by_layer=True)
    remat = jax.tree.map(lambda x: x, model)
    remat.config = dataclasses.replace(model.config, remat="full")
    remat.blocks = model.blocks
    plain = jax.tree.map(lambda x: x, model)
    plain.config = dataclasses.replace(model.config, scale_by_layer=False)

    def loss_and_logits(call, model):
        def loss(model):
            logits = call(model, TOKENS)
            return jnp.sum(jnp.sin(logits)), logits

        gradient, logits = jax.grad(loss, has_aux=True)(model)
        return gradient.embedding[...], logits

    def in_steps(model, tokens):
        first = model(tokens[:, :4], cache=model.init_cache((2,)))
        return jnp.concatenate([first.logits, model(tokens[:, 4:], cache=first.cache).logits], axis=1)

    def call(model, tokens):
        return model(tokens).logits

    @small.jit
    def run(model, scanned, remat, plain):
        runs = [loss_and_logits(call, one) for one in (model, scanned, remat)]
        return loss_and_logits(by_hand, model), runs, in_steps(scanned, TOKENS), call(plain, TOKENS)

    (gradient, logits), runs, stepped, plain_logits = run(model, models.scan_layers(model), remat, plain)
    for other_gradient, other in runs:
        np.testing.assert_allclose(other, logits, **small.CLOSE)
        np.testing.assert_allclose(other_gradient, gradient, **small.CLOSE_GRADIENT)
    np.testing.assert_allclose(stepped, logits, **small.CLOSE)
    assert np.abs(plain_logits - logits).max() > 1e-2


def test_cross_attention_is_scaled_too():
    config = small.config("none", depth=2, scale_by_layer=True, memory_size=D, norm_place="pre", mask=masks.causal())
    stack = small.filled(lambda: models.TransformerStack(config, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    x, states = (jnp.asarray(rng.normal(size=(rows, D)), jnp.float32) for rows in (4, 5))

    @small.jit
    def run(stack):
        y = x
        for layer, block in enumerate(stack.blocks.rest):
            scale = (mods.temperature(layer + 1.0),)
            y = y + block.attention(block.attention_norm(y), mods=scale)
            y = y + block.cross(block.cross_norm(y), states, mods=scale)
            y = y + block.feed_forward(block.feed_forward_norm(y))
        return stack(x, states), stack.final_norm(y)

    np.testing.assert_allclose(*run(stack), **small.CLOSE)
