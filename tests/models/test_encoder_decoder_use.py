"""Encoder–decoders in use: generation, samples, dropout, and configs as JSON."""

from __future__ import annotations

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import decoding, models
from jax_attention.cache import EMPTY
from tests.models import small
from tests.models.pairs import KINDS, SOURCE, TARGET, logits, pair, pair_config
from tests.support.tiers import slow_except


@pytest.mark.slow
@pytest.mark.parametrize("kind", slow_except(("t5, another rule, groups",), KINDS))
def test_greedy_decoding_is_the_argmax_of_the_full_pass(kind):
    model, start, count = pair(kind), [[1], [2]], 5
    positions = jnp.array([[0, 1, 2, 3, 4], [0, 1, 2, EMPTY, EMPTY]])
    decoder = small.jit(lambda model: model.condition(SOURCE, positions=positions))(model)
    out = decoding.generate(decoder, start, max_new_tokens=count)
    target = jnp.concatenate([jnp.asarray(start), out.tokens], axis=1)
    full = logits(model, SOURCE, target, source_positions=positions)
    np.testing.assert_array_equal(jnp.argmax(full[:, :-1], axis=-1), out.tokens)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(full[:, :-1]), out.tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(out.logprobs, chosen, **small.CLOSE)
    scanned = models.scan_layers(model).condition(SOURCE, positions=positions)
    np.testing.assert_array_equal(decoding.generate(scanned, start, max_new_tokens=count).tokens, out.tokens)


def test_nearby_lengths_of_a_source_run_one_program(caplog):
    model = pair("post-norm, learned", depth=1)

    def run(length):
        return decoding.generate(model.condition(small.tokens(2, length)), [[1], [2]], max_new_tokens=3).tokens

    run(3)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run(4), run(9)
    compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert [m for m in compiled if any(name in m for name in ("prefill", "decode", "encode_memory"))] == []


def test_a_pair_of_configs_is_json():
    for kind in KINDS:
        config = pair_config(kind)
        assert models.config_from_json(json.loads(json.dumps(models.config_to_json(config)))) == config
        assert hash(config) == hash(pair_config(kind))


@pytest.mark.slow
def test_samples_share_the_memory():
    model = pair("post-norm, learned", depth=1)
    decoder, key = model.condition(SOURCE), jax.random.key(0)
    options = {"max_new_tokens": 3, "sampler": decoding.temperature(1.0)}
    out = decoding.generate(decoder, [[1], [2]], rng=key, num_samples=2, **options)
    assert out.tokens.shape == (2, 2, 3)
    for sample in range(2):
        single = decoding.generate(decoder, [[1], [2]], rng=jax.random.fold_in(key, sample), **options)
        np.testing.assert_array_equal(single.tokens, out.tokens[sample])


@pytest.mark.slow
def test_dropout_is_drawn_in_encoder_and_decoder():
    model = pair("post-norm, learned", depth=1, dropout=0.5, attention_dropout=0.5)

    @small.jit
    def run(model, seed):
        rng = jax.random.key(seed)
        return model(SOURCE, TARGET, rng=rng).logits, model.encode(SOURCE, rng=rng)

    calls = [run(model, seed) for seed in (0, 0, 1)]
    small.assert_trees_close(calls[0], calls[1])
    for first, other in zip(calls[0], calls[2], strict=True):
        assert np.abs(first - other).max() > 0.1


@pytest.mark.slow
def test_captured_weights_are_those_after_dropout():
    """The residual stream after a block equals captured weights times values, written out."""
    model = pair("sandwich, rotary", depth=1, attention_dropout=0.5)
    capture = models.Capture(weights=(0,), hidden=(-1, 0), cross=(0,))

    @small.jit
    def run(model):
        rngs = jax.random.split(jax.random.key(0))
        memory = model.decoder.project_memory(model.encode(SOURCE, rng=rngs[0]))
        captured = model(SOURCE, TARGET, rng=jax.random.key(0), capture=capture).captured
        block, x = model.decoder.blocks.rest[0], captured.hidden[-1]

        def weighted_output(layer, weights, value):
            value = jnp.repeat(value, weights.shape[1] // value.shape[-2], axis=-2)
            return layer.out(jnp.einsum("bnts,bsnh->btnh", weights, value).reshape(*x.shape[:-1], -1))

        value = block.attention.project_memory(block.attention_norm(x)).value
        x = x + block.attention_after(weighted_output(block.attention, captured.weights[0], value))
        x = x + block.cross_after(weighted_output(block.cross, captured.cross[0], memory.rest[0].value))
        x = x + block.feed_forward_after(block.feed_forward(block.feed_forward_norm(x)))
        return x, captured.hidden[0], captured.cross[0]

    found, expected, weights = run(model)
    assert np.any(np.asarray(weights) == 0)
    np.testing.assert_allclose(found, expected, **small.CLOSE)
