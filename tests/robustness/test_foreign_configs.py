"""JSON of unknown origin as the config of a run: nothing that it names runs, any shape of it gives a short error."""

from __future__ import annotations

import json
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_attention import models
from jax_attention.core.foreign_files import parse_json
from jax_attention.core.struct import array_field, struct
from jax_attention.mods import Mod
from tests.models import small

CAUSAL = {"value": "masks.Causal", "fields": {"offset": 0}}


@struct
class Slope(Mod):
    """A mod of a user, whose class can be imported."""

    slope: jax.Array = array_field()
    power: int = 1

    def __call__(self, scores, q_pos, k_pos):
        return scores + self.slope * (q_pos - k_pos) ** self.power


MODULE = Slope.__module__


def with_mask(mask):
    return {"vocab_size": 5, "mask": mask}


NOT_ALLOWED = (
    r"code of the module {}, which is not allowed to run.*allow_code=\(\"{}\",\) in Python, --allow-code {} on"
)
REFUSED = {
    "a function": (with_mask({"function": "helpers:mask"}), NOT_ALLOWED.format(*["helpers"] * 3)),
    "a module that acts": (with_mask({"function": "antigravity:x"}), "code of the module antigravity"),
    "a class": (with_mask({"value": "helpers:Mask", "fields": {}}), "code of the module helpers"),
    "by way of the library": (
        with_mask({"function": "jax_attention.core.files:os.remove"}),
        "of the module jax_attention.core.files",
    ),
    "a name that begins alike": (with_mask({"function": "jax_attention_evil:f"}), "module jax_attention_evil"),
    "a wrapper": (
        {"vocab_size": 5, "mods": [{"function": "helpers:mod", "wrapper": "mods.UserMod"}]},
        "mods: expected a part of jax_attention, got 'helpers:mod'",
    ),
    "no name": (with_mask({"function": 3}), "mask: expected module:name, got 3"),
    "a factory": (with_mask({"value": "masks.causal", "fields": {}}), "mask: expected a part that this version knows"),
    "a list": ([1], "config: expected the dictionary that config_to_json makes"),
    "no size": ({}, "config: expected the fields of LMConfig, got none for vocab_size"),
    "large size": ({"vocab_size": 10**12}, "vocab_size: expected at most 2,147,483,647, got 1,000,000,000,000"),
    "size as text": ({"vocab_size": "5"}, "vocab_size: expected a Python int"),
    "position of a list": ({"vocab_size": 5, "position": ["rotary"]}, "position: expected one of learned"),
    "infinite epsilon": ({"vocab_size": 5, "norm_epsilon": {"float": "inf"}}, "norm_epsilon: expected at most 3.4e"),
    "a float": ({"vocab_size": 5, "dropout": {"float": "1"}}, "dropout: expected inf, -inf or nan, got"),
    "types of fields": (
        with_mask(CAUSAL | {"fields": {"offset": [1, 2]}}),
        "mask: expected fields of masks.Causal of their types, got offset of others",
    ),
    "ragged array": (with_mask({"array": [[1], 2], "dtype": "float32"}), "mask: expected an array of numbers and its"),
    "array of objects": (with_mask({"array": [{}], "dtype": "object"}), "mask: expected an array of numbers and its"),
    "stacks": ({"encoder": 3, "decoder": 4}, "encoder: expected a config as a dictionary"),
    "deep": ({"mask": json.loads("[" * 200 + "]" * 200)}, "config: expected at most 64 levels of brackets"),
    "long": ({"vocab_size": 5, "activation": "a" * 10**7}, "activation: expected one of gelu.*characters"),
    "many": ({f"f{i}": 1 for i in range(10_000)}, "and 9,992 more. Of a newer"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_config_is_refused(name):
    data, message = REFUSED[name]
    before = set(sys.modules)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        models.config_from_json(data)
    assert len(str(caught.value)) < 600
    assert not (set(sys.modules) - before) & {"antigravity", "helpers"}


def test_a_part_of_a_user_comes_back_where_its_module_is_allowed():
    config = small.config(mods=(Slope(np.float32([0.5, 1.0]), power=2),))
    data = json.loads(json.dumps(models.config_to_json(config)))
    assert data["mods"][0]["value"] == f"{MODULE}:Slope"
    assert models.config_from_json(data, allow_code=(MODULE,)) == config
    with pytest.raises(ValueError, match=f"allow_code=..{MODULE}"):
        models.config_from_json(data)
    with pytest.raises(ValueError, match="expected names of modules, got one text"):
        models.config_from_json(data, allow_code=MODULE)


# --- Any JSON ---------------------------------------------------------------------------------------------------------

NAMES = ["vocab_size", "width", "mask", "mods", "rope", "encoder", "decoder", "value", "fields", "function", "array"]
NAMES += ["dtype", "float", "wrapper", "offset", "score", "normalize", "windows", "source_vocab_size", "use_bias"]
WORDS = [
    "masks.Causal",
    "mods.Bias",
    "positions.Rotary",
    "os:remove",
    "masks.Any",
    "float32",
    "rotary",
    "inf",
    "masks.And",
]
SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.sampled_from(WORDS) | st.text(max_size=3)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
        | st.fixed_dictionaries(
            {"value": st.sampled_from(WORDS), "fields": st.dictionaries(st.sampled_from(NAMES), inner)}
        )
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6)


def message_of(call):
    """The message of an error that a reader may raise, or None; any other exception is a failure."""
    try:
        call()
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def check_any_json(data):
    message = message_of(lambda: models.config_from_json({"vocab_size": 5} | data))
    assert message is None or ": expected" in message


@settings(max_examples=40, deadline=10_000)
@given(data=OBJECTS)
def test_any_json_as_a_config_is_read_or_refused(data):
    check_any_json(data)


@pytest.mark.slow
@settings(max_examples=1000, deadline=10_000)
@given(data=OBJECTS)
def test_much_json_as_a_config_is_read_or_refused(data):
    check_any_json(data)


@settings(max_examples=60, deadline=10_000)
@given(content=st.binary(max_size=40) | JSON.map(lambda x: json.dumps(x).encode()))
def test_any_bytes_are_json_or_refused(content):
    message = message_of(lambda: parse_json(content, "a file"))
    assert message is None or "expected JSON in 'a file', got" in message
