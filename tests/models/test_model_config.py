"""Configs: defaults, presets with the published numbers of parameters, and what configs and calls refuse."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import masks, models, mods, normalizers
from tests.models import small

# --- Defaults --------------------------------------------------------------------------------------------------------


def test_defaults_follow_the_width():
    config = models.LMConfig(vocab_size=7, width=96, num_heads=6)
    assert (config.resolved_head_size, config.resolved_kv_heads, config.resolved_ff_size) == (16, 6, 384)
    gated = dataclasses.replace(config, activation="swiglu")
    assert gated.resolved_ff_size == 256
    assert dataclasses.replace(gated, width=100, num_heads=5).resolved_ff_size == 272, (
        "8 D / 3 rounded up to a multiple of 8"
    )
    assert dataclasses.replace(config, kv_heads=2, head_size=5, ff_size=9).resolved_ff_size == 9
    assert [dataclasses.replace(config, windows=(3, None, 5)).window(layer) for layer in range(4)] == [3, None, 5, 3]


def test_numpy_numbers_become_python_numbers():
    """A config is written as JSON, which has no NumPy numbers."""
    config = small.config(
        width=np.int64(16), windows=(np.int32(3), None), dropout=np.float32(0.25), sinks=np.bool_(False)
    )
    same = small.config(width=16, windows=(3, None), dropout=0.25)
    assert config == same
    assert hash(config) == hash(same)
    assert [type(x) for x in (config.width, config.windows[0], config.dropout, config.sinks)] == [int, int, float, bool]


# --- Presets ---------------------------------------------------------------------------------------------------------

PUBLISHED = {
    "GPT-2": (models.gpt2(), 124_439_808),
    "Llama 3.2 1B": (models.llama(tied_head=True), 1_235_814_400),
    "Gemma 2 2B": (models.gemma2(), 2_614_341_888),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(name):
    config, expected = PUBLISHED[name]
    abstract = jax.eval_shape(lambda: models.create(config))
    assert sum(x.size for x in jax.tree.leaves(abstract)) == expected


def test_presets_by_name():
    assert {name: make(vocab_size=5).vocab_size for name, make in models.PRESETS.items()} == dict.fromkeys(
        ("tiny", "gpt2", "llama", "gemma2"), 5
    )
    with pytest.raises(TypeError, match="vocab_size"):
        models.tiny()


def halve(scores, q_pos, k_pos):
    return scores / 2


# --- What is refused -------------------------------------------------------------------------------------------------

BAD = {
    "vocab_size": ({"vocab_size": 0}, ValueError, "vocab_size: expected an int >= 1, got 0."),
    "float size": (
        {"width": 16.0},
        TypeError,
        "width: expected a Python int (it is static under jit), got float 16.0.",
    ),
    "bool size": ({"depth": True}, TypeError, "depth: expected a Python int"),
    "kv_heads": ({"kv_heads": 3}, ValueError, "kv_heads: expected a divisor of num_heads = 4, got 3."),
    "no kv_heads": ({"kv_heads": 0}, ValueError, "kv_heads: expected an int >= 1, got 0. None takes the default."),
    "heads": (
        {"num_heads": 3, "kv_heads": None, "head_size": None},
        ValueError,
        "num_heads: expected a divisor of width = 16, got 3. Or give head_size.",
    ),
    "odd rotary": (
        {"head_size": 5},
        ValueError,
        "head_size: expected an even size for position='rotary', got 5. Rotate fewer features: rope=positions.rotary(",
    ),
    "odd width": (
        {"position": "sinusoidal", "width": 15, "head_size": 4},
        ValueError,
        "width: expected an even size for position='sinusoidal', got 15.",
    ),
    "dropout": ({"dropout": 1.0}, ValueError, "dropout: expected 0 <= rate < 1, got 1.0. 0 switches it off."),
    "attention_dropout": (
        {"attention_dropout": -0.1},
        ValueError,
        "attention_dropout: expected 0 <= rate < 1, got -0.1",
    ),
    "text dropout": ({"dropout": "0.1"}, TypeError, "dropout: expected a Python number, got '0.1'."),
    "epsilon": ({"norm_epsilon": 0.0}, ValueError, "norm_epsilon: expected a positive number, got 0.0. The default is"),
    "score_cap": ({"score_cap": 0}, ValueError, "score_cap: expected a positive number, got 0. Leave it out to switch"),
    "logit_cap": ({"logit_cap": -1.0}, ValueError, "logit_cap: expected a positive number, got -1.0. Leave it out"),
    "bias place": (
        {"use_bias": ("qkv", "mlp")},
        ValueError,
        "use_bias: expected places among qkv, out, feed_forward, norm, got ['mlp'].",
    ),
    "bias flag": ({"use_bias": "qkv"}, TypeError, "use_bias: expected True or False or a tuple of places, got 'qkv'."),
    "norm of heads": ({"qk_norm": "all"}, TypeError, "qk_norm: expected True or False or 'all_heads', got 'all'."),
    "local rope": ({"local_rope": 1e4}, TypeError, "local_rope: expected positions.rotary(...), got 10000.0."),
    "flag": ({"scan": "no"}, TypeError, "scan: expected True or False, got 'no'."),
    "activation": (
        {"activation": "tanh"},
        ValueError,
        "activation: expected one of gelu, gelu_tanh, relu, relu2, silu,",
    ),
    "position": (
        {"position": "rope"},
        ValueError,
        "position: expected one of learned, sinusoidal, sinusoidal_half, rotary, alibi, t5,",
    ),
    "norm": ({"norm": "batch"}, ValueError, "norm: expected one of layer, rms, got 'batch'."),
    "norm_place": (
        {"norm_place": "middle"},
        ValueError,
        "norm_place: expected one of pre, post, sandwich, after, parallel, got 'middle'.",
    ),
    "remat": ({"remat": True}, ValueError, "remat: expected one of none, dots, full, got True."),
    "dtype": ({"dtype": "fp8"}, ValueError, "dtype: expected one of float32, bfloat16, float16, float64, got 'fp8'."),
    "float64": ({"param_dtype": "float64"}, ValueError, "param_dtype: expected x64 mode for float64. Call jax.config"),
    "mask": (
        {"mask": mods.soft_cap(3.0)},
        TypeError,
        "mask: expected a part from jax_attention.masks or a function, got",
    ),
    "factory": (
        {"normalize": normalizers.sparsemax},
        TypeError,
        "normalize: expected a part, got the factory sparsemax",
    ),
    "score": (
        {"score": "dot"},
        TypeError,
        "score: expected a part from jax_attention.scores or a function, got str 'dot'.",
    ),
    "list of mods": ({"mods": [halve]}, TypeError, "mods: expected a tuple of mods, got ["),
    "mod": (
        {"mods": (masks.causal(),)},
        TypeError,
        "mods: expected a part from jax_attention.mods or a function, got caus",
    ),
    "windows": (
        {"windows": 3},
        TypeError,
        "windows: expected a tuple of sizes or None, got 3. (None,) is full attention",
    ),
    "no windows": ({"windows": ()}, TypeError, "windows: expected a tuple of sizes or None, got ()."),
    "window": (
        {"windows": (0,)},
        ValueError,
        "windows: expected an int >= 1, got 0. A window counts the query itself.",
    ),
    "sinks": (
        {"sinks": True, "normalize": normalizers.entmax15()},
        ValueError,
        "sinks: expected the plain softmax with it, got normalize=entmax15(). Put sinks into the normalizer: "
        "normalize=normalizers.softmax(sinks)",
    ),
    "rope": ({"rope": 10000.0}, TypeError, "rope: expected positions.rotary(...), got 10000.0."),
    "module": (
        {"score": type("Odd", (), {"as_score": halve, "__call__": halve})()},
        TypeError,
        "score: expected a part,",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_config_refuses(name):
    changes, error, message = BAD[name]
    with pytest.raises(error, match="^" + re.escape(message)):
        small.config(**changes)


def test_plain_softmax_fits_sinks():
    assert small.config(sinks=True, normalize=normalizers.softmax()).sinks


CALLS = {
    "float tokens": (
        lambda m: m(jnp.ones(3)),
        TypeError,
        "tokens: expected integers [..., T], got float32[3]. Encode text first: tokenizer.encode.",
    ),
    "one token": (lambda m: m(jnp.asarray(3)), TypeError, "tokens: expected integers [..., T], got int32[]."),
    "too long": (
        lambda m: m(jnp.zeros(13, int)),
        ValueError,
        "tokens: expected at most context = 12 tokens, the length of the learned position table, got 13. Cut the text,",
    ),
    "positions": (
        lambda m: m(jnp.zeros((2, 3), int), positions=jnp.arange(4)),
        ValueError,
        "positions: expected one position per row, [..., 3], got int32[4].",
    ),
    "rows of positions": (
        lambda m: m(jnp.zeros((2, 3), int), positions=jnp.zeros((4, 3), int)),
        ValueError,
        "positions: expected batch dimensions that broadcast against (2,), got int32[4,3].",
    ),
    "float segments": (
        lambda m: m(jnp.zeros(3, int), segment_ids=jnp.ones(3)),
        TypeError,
        "segment_ids: expected integers, got float32[3].",
    ),
    "segments and cache": (
        lambda m: m(jnp.zeros(3, int), segment_ids=jnp.zeros(3, int), cache=m.init_cache()),
        ValueError,
        "segment_ids: expected None with a cache, whose rows carry no segments. Use one cache row per document.",
    ),
    "attention dropout and cache": (
        lambda m: m(jnp.zeros(3, int), rng=jax.random.key(0), cache=m.init_cache()),
        ValueError,
        "rng: expected None with a cache, as no weight is dropped there, got attention_dropout = 0.1. Leave rng out.",
    ),
    "cache of another layout": (
        lambda m: m(jnp.zeros(3, int), cache=models.scan_layers(m).init_cache()),
        ValueError,
        "cache: expected a models.LMCache of 0 stacked and 1 single layers, got (1, 0). Make it with init_cache of the",
    ),
    "cache of one layer": (
        lambda m: m(jnp.zeros(3, int), cache=m.init_cache().rest[0]),
        ValueError,
        "cache: expected a models.LMCache of 0 stacked and 1 single layers, got KVCache(",
    ),
    "cache of another batch": (
        lambda m: m(jnp.zeros((2, 3), int), cache=m.init_cache((4,))),
        ValueError,
        "tokens: expected batch dimensions (4,) as in the cache, got (2,). Make the cache by init_cache(batch=(2,)).",
    ),
    "capacity": (lambda m: m.init_cache(capacity=0), ValueError, "capacity: expected an int >= 1, got 0."),
    "batch": (lambda m: m.init_cache(3), TypeError, "batch: expected a tuple of sizes, got 3. One axis is (size,)."),
    "ring_chunk": (lambda m: m.init_cache(ring_chunk=0), ValueError, "ring_chunk: expected an int >= 1, got 0."),
    "missing layer": (
        lambda m: m(jnp.zeros(3, int), capture=models.Capture(weights=(0, 1))),
        ValueError,
        "capture.weights: expected layers 0 to 0 or 'all', got [1].",
    ),
    "missing hidden": (
        lambda m: m(jnp.zeros(3, int), capture=models.Capture(hidden=(-2,))),
        ValueError,
        "capture.hidden: expected layers -1 to 0 or 'all', got [-2].",
    ),
    "capture": (lambda m: m(jnp.zeros(3, int), capture=(0,)), TypeError, "capture: expected models.Capture(weights=,"),
    "one layer": (lambda m: models.Capture(weights=0), TypeError, "capture.weights: expected a tuple of layer numbers"),
    "word": (
        lambda m: models.Capture(hidden="last"),
        TypeError,
        "capture.hidden: expected a tuple of layer numbers or",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_call_refuses(name):
    call, error, message = CALLS[name]
    model = small.model("learned", depth=1, attention_dropout=0.1)
    with pytest.raises(error, match="^" + re.escape(message)):
        jax.eval_shape(lambda: call(model))


def test_tokens_outside_of_the_vocabulary_are_nan():
    """Negative tokens too: -100, the mark of an ignored target, must not be the hundredth token from the end."""
    model = small.model("none", depth=1, vocab_size=200)
    logits = small.jit(lambda tokens: model(tokens).logits)(jnp.asarray([[3, 200], [3, -100], [3, 199]]))
    assert np.isnan(logits[:2, 1]).all()
    assert np.isfinite(logits[2]).all()


def test_positions_beyond_the_table_are_nan():
    model = small.model("learned", depth=1)
    call = small.jit(lambda positions: model(small.tokens(2), positions=positions).logits)
    assert np.isfinite(call(jnp.asarray([0, small.CONTEXT - 1]))).all()
    assert np.isnan(call(jnp.asarray([0, small.CONTEXT]))[1]).all()
