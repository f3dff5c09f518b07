"""Encoder–decoders: the memory, padding, layouts, captures, causality, derivatives, generation, and wrong calls."""

from __future__ import annotations

import dataclasses
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jax_attention import attend_heads, decoding, models, normalizers, scores
from jax_attention.cache import EMPTY
from tests.models import small

S, T, D = 5, 4, 16
SIZES = {"vocab_size": small.VOCABULARY, "context": small.CONTEXT, "width": D, "ff_size": 24}
KINDS = {
    "post-norm, learned": {"encoder": {}, "decoder": {}, "shared": {"norm_place": "post", "embedding_norm": True}},
    "t5, own rule, groups": {
        "encoder": {"depth": 3, "num_heads": 2},
        "decoder": {"kv_heads": 2, "score_cap": 2.0, "qk_norm": True, "normalize": normalizers.sparsemax()},
        "shared": {"position": "t5", "norm": "rms", "use_bias": False, "score": scores.scaled_dot(1.0)},
    },
    "sandwich, rotary": {
        "encoder": {"windows": (3, None), "depth": 3},
        "decoder": {"windows": (None, 2), "depth": 3, "kv_heads": 1, "tied_head": False, "head_bias": True},
        "shared": {"norm_place": "sandwich", "position": "rotary", "norm": "rms", "activation": "swiglu"},
    },
}
ONE = [kind if "rotary" in kind else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
"""Each kind more costs seconds to compile."""
SHARING = {"post-norm, learned": True}


def pair_config(kind: str, **changes) -> models.PairConfig:
    given = KINDS[kind]
    shared = {"depth": 2, "num_heads": 4} | SIZES | given["shared"] | changes
    return models.PairConfig(
        encoder=models.LMConfig(**shared | given["encoder"], mask=None),
        decoder=models.LMConfig(**shared | given["decoder"], memory_size=shared["width"]),
        shared_embedding=SHARING.get(kind, False),
    )


def pair(kind: str, seed: int = 0, **changes) -> models.EncoderDecoder:
    return small.filled(lambda: models.create(pair_config(kind, **changes)), seed)


def logits(model, source, target, **options):
    return small.jit(lambda model, *x: model(*x, **options).logits)(model, source, target)


SOURCE, TARGET = small.tokens(2, S), small.tokens(2, T, seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_leading_axes_and_padding_change_nothing(kind):
    """Every row alone is the row in the batch; behind a source anything may stand, even what gives NaN."""
    right = jnp.array([[0, 1, 2, 3, 4], [0, 1, 2, EMPTY, EMPTY]])
    left = jnp.array([[0, 1, 2, 3, 4], [EMPTY, EMPTY, 0, 1, 2]])
    turned = jnp.stack([SOURCE[0], jnp.roll(SOURCE[1], 2)])

    @small.jit
    def run(model):
        spoilt = jnp.where(right == EMPTY, -1, SOURCE)
        return (
            model(SOURCE, TARGET).logits,
            model(SOURCE[0], TARGET[0]).logits,
            model(SOURCE[1, :3], TARGET[1]).logits,
            model(SOURCE[None], TARGET[None]).logits,
            model(spoilt, TARGET, source_positions=right).logits,
            model(turned, TARGET, source_positions=left).logits,
        )

    together, first, shorter, nested, padded, from_left = run(pair(kind))
    np.testing.assert_allclose(first, together[0], **small.CLOSE)
    np.testing.assert_allclose(nested[0], together, **small.CLOSE)
    np.testing.assert_allclose(padded, jnp.stack([first, shorter]), **small.CLOSE)
    np.testing.assert_allclose(from_left, jnp.stack([first, shorter]), **small.CLOSE)


@pytest.mark.parametrize("kind", ONE)
def test_layouts_remat_and_captures_agree(kind):
    model, asked = pair(kind), models.Capture("all", (-1,), "all")
    stacked = models.scanned(model)
    assert stacked.config.scan
    assert stacked.decoder.config.scan
    assert len(stacked.decoder.blocks.scanned) > 0
    frugal = dataclasses.replace(stacked.config, decoder=dataclasses.replace(stacked.config.decoder, remat="full"))
    full = jax.tree.map(lambda x: x, stacked)
    full.config, full.decoder.config = frugal, frugal.decoder

    def loss(model):
        out = model(SOURCE, TARGET, capture=asked)
        return jnp.sum(jnp.sin(out.logits)), out

    @small.jit
    def run(*models):
        return [jax.grad(loss, has_aux=True)(model) for model in models]

    (gradient, expected), *others = run(model, stacked, full)
    for other, out in others:
        small.assert_trees_close((out.logits, out.captured), (expected.logits, expected.captured), **small.CLOSE)
        own = models.to_dict(models.unrolled(other))
        small.assert_trees_close(own, models.to_dict(gradient), **small.CLOSE_GRADIENT)
    small.assert_trees_close(models.unrolled(stacked), model)
    np.testing.assert_array_equal(logits(model, SOURCE, TARGET), expected.logits)
    assert sorted(expected.captured.cross) == list(range(model.config.decoder.depth))
    for maps in expected.captured.cross.values():
        assert maps.shape == (2, 4, T, S)
        np.testing.assert_allclose(maps.sum(-1), np.ones((2, 4, T)), **small.CLOSE)


def test_cross_attention_is_the_rule_over_the_memory():
    """By hand, with every part of the rule that crosses: score, cap, normalizer; no mask, no positions, no mods."""
    model = pair("t5, own rule, groups")
    out = small.jit(lambda model: model(SOURCE, TARGET, capture=models.Capture(weights=(0,), hidden="all", cross=(0,))))
    captured = out(model).captured
    states = small.jit(lambda model: model.encode(SOURCE))(model)
    block = model.decoder.blocks.rest[0]

    def by_hand(x):
        x = x + block.attention(block.attention_norm(x), mods=(*model.decoder.shared_mods(), capped))
        inner = block.cross.projections
        q, k, v = (
            layer(y).reshape(2, -1, heads, 4)
            for layer, y, heads in (
                (inner.query, block.cross_norm(x), 4),
                (inner.key, states, 2),
                (inner.value, states, 2),
            )
        )
        q, k = block.cross.query_norm(q), block.cross.key_norm(k)
        rule = {"score": scores.scaled_dot(1.0), "mods": (capped,), "normalize": normalizers.sparsemax()}
        x = x + block.cross.out(attend_heads(q, k, v, **rule).reshape(2, T, D))
        return x + block.feed_forward(block.feed_forward_norm(x))

    capped = block.mods[-1].value
    np.testing.assert_allclose(small.jit(by_hand)(captured.hidden[-1]), captured.hidden[0], **small.CLOSE)


def test_a_token_never_sees_later_ones_and_always_the_source():
    model = pair("sandwich, rotary")

    def through(shift):
        """Logits with a shift of the embedding of every target token; its derivative shows who sees whom."""
        decoder = jax.tree.map(lambda x: x, model.decoder)
        hidden = decoder.embedding[...][TARGET[0]] * 1.0 + shift
        memory = decoder.remember(model.encode(SOURCE[0]))
        return models.Body.__call__(decoder, hidden, memory=memory).hidden

    jacobian = small.jit(jax.jacobian(through))(jnp.zeros((T, D)))
    reach = np.abs(jacobian).max(axis=(1, 3))
    assert np.all(reach[np.triu_indices(T, 1)] == 0)
    assert np.all(np.diag(reach) > 0)
    of_source = small.jit(jax.jacobian(lambda x: model.decoder(TARGET[0], memory=model.decoder.remember(x)).logits))(
        jnp.ones((S, D))
    )
    assert np.all(np.abs(of_source).max(axis=(1, 3)) > 0)


def test_a_shared_table_gets_the_gradients_of_both_halves():
    model = pair("post-norm, learned")
    config = dataclasses.replace(model.config, shared_embedding=False)
    apart = jax.tree.map(lambda x: x, model)
    apart.encoder.embedding, apart.config = model.decoder.embedding, config

    def loss(model):
        return jnp.sum(jnp.sin(model(SOURCE, TARGET).logits))

    one, two = small.jit(jax.grad(loss))(model), small.jit(jax.grad(loss))(apart)
    assert model.encoder.embedding is None
    both = two.encoder.embedding[...] + two.decoder.embedding[...]
    np.testing.assert_allclose(one.decoder.embedding[...], both, **small.CLOSE_GRADIENT)


def test_derivatives_of_second_order():
    config = pair_config("t5, own rule, groups", depth=1, width=4, num_heads=2, ff_size=5, vocab_size=7)
    config = dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, depth=1),
        decoder=dataclasses.replace(config.decoder, kv_heads=1, normalize=None, memory_size=4),
    )
    model = small.filled(lambda: models.create(config))
    source, target = SOURCE[0, :3] % 7, TARGET[0, :2] % 7
    call = jax.jit(lambda params: jnp.sum(jnp.sin(models.EncoderDecoder.__call__(params, source, target).logits)))
    check_grads(call, (model,), order=2, modes=("fwd", "rev"), rtol=2e-2, atol=2e-2)


# --- Generation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_decoding_is_the_argmax_of_the_full_pass(kind):
    model, start, count = pair(kind), [[1], [2]], 5
    places = jnp.array([[0, 1, 2, 3, 4], [0, 1, 2, EMPTY, EMPTY]])
    given = small.jit(lambda model: model.given(SOURCE, positions=places))(model)
    out = decoding.generate(given, start, max_new_tokens=count)
    target = jnp.concatenate([jnp.asarray(start), out.tokens], axis=1)
    full = logits(model, SOURCE, target, source_positions=places)
    np.testing.assert_array_equal(jnp.argmax(full[:, :-1], axis=-1), out.tokens)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(full[:, :-1]), out.tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(out.logprobs, chosen, **small.CLOSE)
    scanned = models.scanned(model).given(SOURCE, positions=places)
    np.testing.assert_array_equal(decoding.generate(scanned, start, max_new_tokens=count).tokens, out.tokens)


def test_nearby_lengths_of_a_source_run_one_program(caplog):
    model = pair("t5, own rule, groups")

    def run(length):
        return decoding.generate(model.given(small.tokens(2, length)), [[1], [2]], max_new_tokens=3).tokens

    run(3)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run(4), run(9)
    compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert [m for m in compiled if any(name in m for name in ("prefill", "decode", "remembered"))] == []


def test_a_pair_of_configs_is_json():
    for kind in KINDS:
        config = pair_config(kind)
        assert models.config_from_json(json.loads(json.dumps(models.config_to_json(config)))) == config
        assert hash(config) == hash(pair_config(kind))


def test_samples_share_the_memory():
    model = pair("sandwich, rotary")
    given, key = model.given(SOURCE), jax.random.key(0)
    options = {"max_new_tokens": 3, "sampler": decoding.temperature(1.0)}
    out = decoding.generate(given, [[1], [2]], rng=key, num_samples=3, **options)
    assert out.tokens.shape == (3, 2, 3)
    for sample in range(3):
        alone = decoding.generate(given, [[1], [2]], rng=jax.random.fold_in(key, sample), **options)
        np.testing.assert_array_equal(alone.tokens, out.tokens[sample])


def test_dropout_is_drawn_in_both_halves():
    model = pair("post-norm, learned", dropout=0.5, attention_dropout=0.5)

    @small.jit
    def run(model, seed):
        rng = jax.random.key(seed)
        return model(SOURCE, TARGET, rng=rng).logits, model.encode(SOURCE, rng=rng)

    calls = [run(model, seed) for seed in (0, 0, 1)]
    small.assert_trees_close(calls[0], calls[1])
    for first, other in zip(calls[0], calls[2], strict=True):
        assert np.abs(first - other).max() > 0.1


def test_maps_under_dropout_are_those_that_were_applied():
    """The stream behind a block, put together from the captured maps and the values."""
    model = pair("sandwich, rotary", attention_dropout=0.5)
    asked = models.Capture(weights=(0,), hidden=(-1, 0), cross=(0,))

    @small.jit
    def run(model):
        rngs = jax.random.split(jax.random.key(0))
        memory = model.decoder.remember(model.encode(SOURCE, rng=rngs[0]))
        captured = model(SOURCE, TARGET, rng=jax.random.key(0), capture=asked).captured
        block, x = model.decoder.blocks.rest[0], captured.hidden[-1]

        def from_maps(layer, maps, value):
            value = jnp.repeat(value, maps.shape[1] // value.shape[-2], axis=-2)
            return layer.out(jnp.einsum("bnts,bsnh->btnh", maps, value).reshape(*x.shape[:-1], -1))

        own = block.attention.remember(block.attention_norm(x)).value
        x = x + block.attention_after(from_maps(block.attention, captured.weights[0], own))
        x = x + block.cross_after(from_maps(block.cross, captured.cross[0], memory.rest[0].value))
        x = x + block.feed_forward_after(block.feed_forward(block.feed_forward_norm(x)))
        return x, captured.hidden[0], captured.cross[0]

    found, expected, maps = run(model)
    assert np.any(np.asarray(maps) == 0)
    np.testing.assert_allclose(found, expected, **small.CLOSE)


# --- Wrong calls -----------------------------------------------------------------------------------------------------

ENCODER = models.LMConfig(**SIZES, num_heads=2, mask=None)
DECODER = models.LMConfig(**SIZES, num_heads=2, memory_size=D)
BAD = {
    "no memory size": (
        lambda: models.PairConfig(encoder=ENCODER, decoder=dataclasses.replace(DECODER, memory_size=None)),
        r"decoder: expected memory_size = 16, the width of the encoder, got None\.",
    ),
    "an encoder with a memory": (
        lambda: models.PairConfig(encoder=DECODER, decoder=DECODER),
        r"encoder: expected memory_size None",
    ),
    "a dict": (lambda: models.PairConfig(encoder={}, decoder=DECODER), r"encoder: expected models.LMConfig"),
    "two vocabularies": (
        lambda: models.PairConfig(
            encoder=ENCODER, decoder=dataclasses.replace(DECODER, vocab_size=3), shared_embedding=True
        ),
        r"shared_embedding: expected equal \[vocab_size, width\] in both halves, got \(13, 16\) and \(3, 16\)",
    ),
    "parallel": (
        lambda: dataclasses.replace(DECODER, norm_place="parallel"),
        r"memory_size: expected None beside norm_place='parallel'",
    ),
    "forgotten memory": (
        lambda: models.create(DECODER)(TARGET),
        r"memory: expected models.Memory, got a value of type NoneType. Make it by model.remember\(states\)\.",
    ),
    "forgotten to remember": (
        lambda: models.create(DECODER)(TARGET, memory=jnp.ones((2, S, D))),
        r"memory: expected models.Memory, got a value of type ArrayImpl",
    ),
    "a cache": (
        lambda: models.create(DECODER)(TARGET, memory=models.create(DECODER).init_cache((2,))),
        r"memory: expected models.Memory, got a value of type LMCache",
    ),
    "a memory of another layout": (
        lambda: models.create(DECODER)(
            TARGET, memory=models.create(dataclasses.replace(DECODER, scan=True)).remember(jnp.ones((2, S, D)))
        ),
        r"memory: expected 0 stacked and 4 single layers, got 1 and 0\.",
    ),
    "a memory of more sources": (
        lambda: models.create(DECODER)(TARGET, memory=models.create(DECODER).remember(jnp.ones((3, S, D)))),
        r"memory: expected leading axes that broadcast to those of the target, \(2,\), got \(3,\)\.",
    ),
    "more sources": (
        lambda: pair("post-norm, learned")(SOURCE, TARGET[0]),
        r"target: expected the leading axes of the source, \(2,\), got \(\)\.",
    ),
    "fewer prompts": (
        lambda: decoding.generate(pair("post-norm, learned").given(SOURCE), [1], max_new_tokens=2),
        r"memory: expected leading axes that broadcast to those of the target, \(\), got \(2,\)\.",
    ),
    "a long source": (
        lambda: pair("post-norm, learned").given(jnp.zeros(small.CONTEXT + 1, int)),
        r"tokens: expected at most context = 12 tokens",
    ),
    "layouts": (
        lambda: models.PairConfig(encoder=dataclasses.replace(ENCODER, scan=True), decoder=DECODER),
        r"scan: expected the same in both halves, got True and False\.",
    ),
    "dtypes": (
        lambda: models.PairConfig(encoder=ENCODER, decoder=dataclasses.replace(DECODER, param_dtype="bfloat16")),
        r"param_dtype: expected the same in both halves, got 'float32' and 'bfloat16'\.",
    ),
    "sharing": (
        lambda: models.PairConfig(encoder=ENCODER, decoder=DECODER, shared_embedding="x"),
        r"shared_embedding: expected True or False",
    ),
    "a memory too many": (
        lambda: small.model("none")(TARGET, memory=models.create(DECODER).remember(jnp.ones((S, D)))),
        r"memory: expected None, as memory_size of the config is None",
    ),
    "remember nothing": (
        lambda: small.model("none").remember(jnp.ones((S, D))),
        r"memory_size: expected a model with cross-attention, got None",
    ),
    "states of another size": (
        lambda: models.create(DECODER).remember(jnp.ones((S, D + 1))),
        r"states: expected a memory \[..., S, memory_size = 16\], got float32\[5,17\]",
    ),
    "positions": (
        lambda: pair("post-norm, learned")(SOURCE, TARGET, source_positions=jnp.arange(S + 1)),
        r"positions: expected one position per row, \[..., 5\], got int32\[6\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_calls_are_refused(name):
    call, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()
