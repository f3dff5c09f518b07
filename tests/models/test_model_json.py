"""A config and its rule come back from JSON as they were; what could not come back is refused."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_attention import masks, models, mods, nn, normalizers, positions
from tests.models import small
from tests.support import cases

ALLOWED = (__name__, "tests")


def keep_even(q_pos, k_pos):
    """A mask that can be imported by name."""
    return (q_pos - k_pos) % 2 == 0


def halve(scores, q_pos, k_pos):
    """A mod that can be imported by name."""
    return scores / 2


def round_trip(config):
    """The config after writing and reading it as JSON text, as in a checkpoint."""
    again = models.config_from_json(json.loads(json.dumps(models.config_to_json(config))), allow_code=ALLOWED)
    assert again == config
    assert hash(again) == hash(config)
    assert jax.tree.structure(again.mask) == jax.tree.structure(config.mask)
    return again


@pytest.mark.parametrize(("part", "case"), [p for p in cases.named_parts() if p.values[1].name != "plain"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_part_comes_back(part, case, dtype):
    draw = cases.Draw(np.random.default_rng(3), cases.Shape(4, 4), (4,), dtype)
    value = case.build(draw)[0]
    again = getattr(round_trip(small.config(**cases.rule_arguments(part, value))), "mods" if part == "mod" else part)
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves((value,)), strict=True):
        assert getattr(x, "dtype", type(x)) == getattr(y, "dtype", type(y))
        np.testing.assert_array_equal(np.asarray(x, np.float64), np.asarray(y, np.float64))


CONFIGS = {
    "presets": models.gemma2(),
    "nested": small.config(mask=(masks.causal() | masks.prefix(2)) & ~(masks.dilated(3) | masks.lengths(5))),
    "function": small.config(mask=keep_even, mods=(halve, mods.soft_cap(3.0), halve)),
    "function inside": small.config(mask=masks.causal() & ~masks.as_mask(keep_even) & keep_even),
    "wrapped": small.config(mask=masks.as_mask(keep_even), mods=(mods.as_mod(halve),)),
    "minus infinity": small.config(mods=(mods.bias(np.float32([[0, -np.inf], [np.nan, 1 / 3]])),)),
    "no mask": small.config(mask=None),
    "linear": small.config(rope=positions.rotary(base=12345.6, scaling=positions.linear_scaling(2.5))),
    "dynamic": small.config(rope=positions.rotary(style="interleaved", scaling=positions.dynamic_scaling(2.0, 8))),
    "llama3": small.config(rope=positions.rotary(size=4, scaling=positions.llama3_scaling(8.0, 1.0, 4.0, 512))),
    "yarn": small.config(rope=positions.rotary(scaling=positions.yarn_scaling(4.0, 32, truncate=False))),
}


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"minus infinity"}))
def test_configs_come_back(name):
    again = round_trip(CONFIGS[name])
    if name == "function inside":
        model = jax.eval_shape(lambda: models.create(again)(small.tokens(4)).logits)
        assert model.shape == (4, small.VOCABULARY)


def test_arrays_come_back_bit_for_bit():
    config = CONFIGS["minus infinity"]
    again = models.config_from_json(json.loads(json.dumps(models.config_to_json(config))), allow_code=ALLOWED)
    np.testing.assert_array_equal(again.mods[0].array, config.mods[0].array)


@given(
    widths=st.tuples(st.integers(1, 64), st.integers(1, 8), st.integers(1, 4)),
    rates=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(1e-30, 1e30)),
    windows=st.lists(st.none() | st.integers(1, 2**40), min_size=1, max_size=3),
    flags=st.lists(st.booleans(), min_size=3, max_size=3),
    offset=st.integers(-5, 5),
)
def test_any_numbers_come_back(widths, rates, windows, flags, offset):
    size, heads, groups = widths
    round_trip(
        models.LMConfig(
            vocab_size=size,
            width=size * heads * groups,
            num_heads=heads * groups,
            kv_heads=heads,
            head_size=2 * size,
            dropout=rates[0],
            norm_epsilon=rates[1],
            score_cap=rates[1],
            windows=tuple(windows),
            tied_head=flags[0],
            scan=flags[1],
            use_bias=flags[2],
            mask=masks.causal(offset) & masks.prefix(size),
        )
    )


VERSION_0_1 = {
    "vocab_size": 5,
    "qk_norm": "joined",
    "use_bias": ["qkv"],
    "mods": [{"function": f"{__name__}:halve", "wrapper": "mods.PlainMod"}],
    "mask": {
        "value": "masks.And",
        "fields": {
            "left": {"function": f"{__name__}:keep_even", "wrapper": "masks.PlainMask"},
            "right": {"value": "masks.Causal", "fields": {"offset": 0}},
        },
    },
    "normalize": {"value": "normalizers.Softmax", "fields": {"plus_one": False, "sinks": None}},
}
"""A config as version 0.1 wrote it."""


def test_json_of_version_0_1_is_read():
    assert models.config_from_json(VERSION_0_1, allow_code=ALLOWED) == models.LMConfig(
        vocab_size=5,
        qk_norm="all_heads",
        use_bias=("qkv",),
        mods=(mods.as_mod(halve),),
        mask=masks.as_mask(keep_even) & masks.causal(),
        normalize=normalizers.softmax(),
    )
    recurrent = {"source_vocab_size": 3, "vocab_size": 5, "score": {"function": "jax_attention.nn.rules:Additive"}}
    expected = models.RNNConfig(source_vocab_size=3, vocab_size=5, score=nn.Additive)
    assert models.config_from_json(recurrent) == expected


def test_fields_left_out_take_their_defaults():
    assert models.config_from_json({"vocab_size": 5}) == models.LMConfig(vocab_size=5)


def make_lambda():
    return lambda q_pos, k_pos: k_pos <= q_pos


LOST = {"function": "no_such_module:f"}
REFUSED = {
    "lambda": (
        lambda: models.config_to_json(small.config(mask=make_lambda())),
        "mask: expected a function that can be impor",
    ),
    "lambda inside": (
        lambda: models.config_to_json(small.config(mask=masks.causal() & make_lambda())),
        "mask.right: expected a function that can be imported by name",
    ),
    "unknown fields": (
        lambda: models.config_from_json({"vocab_size": 5, "colour": 1, "size": 2}),
        "config: expected fields of LMConfig, got also colour, size.",
    ),
    "unknown part": (
        lambda: models.config_from_json({"vocab_size": 5, "mask": {"value": "masks.Spiral", "fields": {}}}),
        "mask: expected a part that this version knows, got 'masks.Spiral'.",
    ),
    "not a class": (
        lambda: models.config_from_json({"vocab_size": 5, "mask": {"value": "masks.causal", "fields": {}}}),
        "mask: expected a part that this version knows, got 'masks.causal'.",
    ),
    "unknown dictionary": (
        lambda: models.config_from_json({"vocab_size": 5, "width": {"size": 3}}),
        "width: expected a part that this version knows, got None.",
    ),
    "fields of a part": (
        lambda: models.config_from_json({"vocab_size": 5, "mask": {"value": "masks.Causal", "fields": {"shift": 0}}}),
        "mask: expected the fields ['offset'] of masks.Causal, got ['shift'].",
    ),
    "lost function": (
        lambda: models.config_from_json({"vocab_size": 5, "mask": LOST}, ["no_such_module"]),
        "mask: expected to import no_such_module:f, got No module named 'no_such_module'. Put its module on the path.",
    ),
    "object": (
        lambda: models.config_to_json(small.config(mods=(type("Odd", (), {"__call__": halve})(),))),
        "mods: expected a function that can be imported by name",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_json_refuses(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        make()
