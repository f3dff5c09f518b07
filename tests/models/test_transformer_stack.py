"""Stacks over vectors, and features that only encoders have: token types, norms over embeddings, transformed heads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_attention import masks, models, positions
from jax_attention.cache import EMPTY
from jax_attention.nn.feed_forward import ACTIVATIONS
from tests.models import small
from tests.support.tiers import slow

T = 6
TOKENS = small.tokens(2, T)
ENCODER = {
    "mask": None,
    "norm_place": "post",
    "embedding_norm": True,
    "token_types": 2,
    "head_transform": True,
    "head_bias": True,
    "logit_scale": 0.5,
}


@pytest.mark.parametrize("depth", [1, *slow(2)])
@pytest.mark.parametrize("scheme", [*slow("rotary"), "t5"])
def test_a_model_is_its_stack_between_embedding_and_head(scheme, depth):
    """The model equals a stack with its parameters over embedded tokens; masks of call and config are combined."""
    model = small.model(scheme, depth=depth)
    arrays = {name: getattr(model, name) for name in ("relative", "blocks", "final_norm")}
    stack = jax.eval_shape(lambda: models.TransformerStack(model.config, rngs=nnx.Rngs(0)))
    for name, x in arrays.items():
        setattr(stack, name, x)

    @small.jit
    def run(model, stack):
        x = model._embed(TOKENS, None, None)
        segments = jnp.array([0, 0, 0, 1, 1, 1])
        return (
            (model.hidden(TOKENS)[0], stack(x)),
            (model.hidden(TOKENS)[0], model.stack(x)),
            (model.hidden(TOKENS, segment_ids=segments)[0], stack(x, segment_ids=segments)),
            (
                model.hidden(TOKENS, segment_ids=segments)[0],
                stack(x, mask=masks.segments(segments)),
            ),
        )

    for expected, found in run(model, stack):
        np.testing.assert_allclose(found, expected, **small.CLOSE)


@pytest.mark.parametrize("depth", [1, *slow(2)])
def test_an_encoder_step_by_step(depth):
    model = small.model("learned", depth=depth, **ENCODER)
    config, types = model.config, np.array([0, 0, 1, 1, 0, 1])
    wrong_types = np.array([0, 0, 1, 1, 2, -1])

    @small.jit
    def run(model):
        calls = (model(TOKENS), model(TOKENS, token_types=types), model(TOKENS[0], token_types=wrong_types))
        return *(call.logits for call in calls), by_hand(model, types), by_hand(model, np.zeros(T, int))

    def by_hand(model, types):
        x = model.embedding[...][TOKENS] + model.token_type[...][types] + model.position[...][:T]
        x = model.embedding_norm(x)
        for block in model.blocks.rest:
            x = block.attention_norm(x + block.attention(x))
            x = block.feed_forward_norm(x + block.feed_forward(x))
        activation, _ = ACTIVATIONS[config.activation]
        x = model.head_norm(activation(x @ model.head_transform.kernel[...] + model.head_transform.bias[...]))
        return 0.5 * x @ model.embedding[...].T + model.head_bias[...]

    assert model.final_norm is None
    by_default, found, refused, expected, expected_by_default = run(model)
    np.testing.assert_allclose(found, expected, **small.CLOSE)
    np.testing.assert_allclose(by_default, expected_by_default, **small.CLOSE)
    assert np.isnan(refused).any(axis=-1).all()


def test_tokens_of_an_encoder_see_all_but_padding():
    model = small.model("sinusoidal", depth=1, **ENCODER)

    @small.jit
    def run(model):
        positions = jnp.array([0, 1, 2, 3, EMPTY, EMPTY])
        invalid = TOKENS.at[:, 4:].set(-1)
        return model(TOKENS).logits, model(TOKENS[:, :4]).logits, model(invalid, positions=positions).logits

    whole, shorter, padded = map(np.asarray, run(model))
    np.testing.assert_allclose(padded[:, :4], shorter, **small.CLOSE)
    assert np.abs(whole[:, 0] - shorter[:, 0]).max() > 1e-3, "the first token sees the last"


def test_relative_positions_have_two_directions_where_the_future_is_seen():
    """Keys to the left and to the right have different buckets in an encoder; a decoder needs only the left ones."""
    both = small.model("t5", mask=None)
    assert both.shared_mods()[0].bidirectional
    assert not small.model("t5").shared_mods()[0].bidirectional
    assert small.model("t5", mask=masks.causal() | masks.prefix(3)).shared_mods()[0].bidirectional


def test_sines_may_come_before_cosines():
    model = small.model("sinusoidal", position="sinusoidal_half")
    plain = small.model("sinusoidal")

    @small.jit
    def run(model, plain):
        styles = ("half", "interleaved")
        half, interleaved = (positions.sinusoidal(jnp.arange(T), model.config.width, style=style) for style in styles)
        return (model._embed(TOKENS, None, None) - plain._embed(TOKENS, None, None))[0], half - interleaved

    np.testing.assert_allclose(*run(model, plain), **small.CLOSE)


def test_a_norm_after_the_last_block_is_a_choice():
    def has_one(scheme, **changes):
        return jax.eval_shape(lambda: models.create(small.config(scheme, **changes))).final_norm is not None

    assert (has_one("learned"), has_one("learned", final_norm=False)) == (True, False)
    assert (has_one("sinusoidal"), has_one("sinusoidal", final_norm=True)) == (False, True)


BAD = {
    "vectors": (lambda stack: stack(jnp.ones((T, 3))), r"x: expected vectors \[..., T, 16\], got float32\[6,3\]"),
    "token types": (
        lambda stack: small.model("none")(TOKENS, token_types=jnp.zeros(T, int)),
        r"token_types: expected None, as the config has token_types = 0",
    ),
    "lengths": (
        lambda stack: small.model("learned", **ENCODER)(TOKENS, token_types=jnp.zeros(T + 1, int)),
        r"token_types: expected one position per row, \[..., 6\], got int32\[7\]",
    ),
    "a deep layer": (
        lambda stack: models.TransformerLayer(small.config("none"), rngs=nnx.Rngs(0)),
        r"depth: expected 1 for a single layer, got 2",
    ),
    "a norm after a layer": (
        lambda stack: models.TransformerLayer(small.config("none", depth=1), rngs=nnx.Rngs(0)),
        r"final_norm: expected False for a single layer",
    ),
    "final norm": (
        lambda stack: small.config("none", final_norm=1),
        r"final_norm: expected True, False or None, got 1",
    ),
    "types": (lambda stack: small.config("none", token_types=-1), r"token_types: expected an int >= 0, got -1"),
    "scale": (lambda stack: small.config("none", logit_scale=0), r"logit_scale: expected a positive number, got 0"),
    "flag": (lambda stack: small.config("none", head_bias=None), r"head_bias: expected True or False, got None"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_calls_are_refused(name):
    call, message = BAD[name]
    stack = small.filled(lambda: models.TransformerStack(small.config("none"), rngs=nnx.Rngs(0)))
    with pytest.raises((ValueError, TypeError), match=message):
        call(stack)
