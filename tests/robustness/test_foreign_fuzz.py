"""Hypothesis writes configs and headers of model folders: each is read, or refused by an error with our message."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jax_attention import interop, models
from jax_attention.interop.hf.config import config_from_fields, family_of
from jax_attention.interop.hf.families import FAMILIES
from jax_attention.interop.hf.field_kinds import KINDS
from jax_attention.interop.hf.stored_weights import open_safetensors
from tests.models import small
from tests.robustness.hostile_folders import WEIGHTS, with_header

NUMBERS = st.sampled_from([0, 1, 2, 3, 8, 64, 2**31 - 1, 2**31, 10**12, -1, 0.5, 1.0, 1e-5, 1e308]) | st.integers()
WORDS = ["gelu", "silu", "default", "yarn", "llama3", "linear", "full_attention", "sliding_attention", "gated-gelu", ""]
SCALARS = st.none() | st.booleans() | NUMBERS | st.sampled_from(WORDS)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(KINDS)), inner, max_size=4),
    max_leaves=8,
)
SIZES = {
    "vocab_size": 11,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "d_ff", "intermediate_size"), 8),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_layer", "num_hidden_layers", "num_layers"), 2),
    "d_kv": 4,
}
ERRORS = (ValueError, TypeError)


def message_of(call, errors=ERRORS):
    """The message of an error that a reader may raise, or None; any other exception is a failure."""
    try:
        call()
    except errors as error:
        return str(error)
    return None


def check_config(model_type, fields):
    values = SIZES | {"model_type": model_type} | fields
    message = message_of(lambda: config_from_fields(family_of(values), values))
    assert message is None or ": expected" in message
    assert message is None or len(message) < 2000


FAMILY = st.sampled_from([family.model_type for family in FAMILIES])
FIELDS = st.dictionaries(st.sampled_from(sorted(KINDS)), JSON, max_size=3)


@settings(max_examples=100, deadline=10_000)
@given(model_type=FAMILY, fields=FIELDS)
def test_any_fields_are_read_or_refused(model_type, fields):
    check_config(model_type, fields)


@pytest.mark.slow
@settings(max_examples=3000, deadline=10_000)
@given(model_type=FAMILY, fields=FIELDS)
def test_many_fields_are_read_or_refused(model_type, fields):
    check_config(model_type, fields)


# --- Headers ----------------------------------------------------------------------------------------------------------

SHAPES = st.lists(st.sampled_from([0, 1, 2, 8, 2**40, -1]) | st.integers(), max_size=3)
ARRAY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I32", "F8_E5M2", "BOOL", "x"]),
        "shape": SHAPES,
        "data_offsets": st.sampled_from([[0, 4], [0, 32], [4, 0], [0, 2**60]]) | st.lists(st.integers(), max_size=3),
    }
)
HEADERS = st.dictionaries(
    st.sampled_from(["wte.weight", "a", "__metadata__", "h.0.attn.bias"]), ARRAY | JSON, max_size=3
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "model"
    config = models.gpt2(vocab_size=11, context=8, width=8, depth=1, num_heads=2, scan=False)
    interop.save(small.filled(lambda: models.create(config)), path)
    return path


@settings(max_examples=100, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=HEADERS, content=st.sampled_from([b"", bytes(4), bytes(32)]))
def test_any_header_is_read_or_refused(header, content, folder):
    with_header(folder, json.dumps(header).encode(), content)
    message = message_of(lambda: open_safetensors(folder / WEIGHTS))
    assert message is None or message.startswith("path: expected")
    assert message_of(lambda: interop.load(folder)).startswith("path: expected")
