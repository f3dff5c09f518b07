"""What each field of a Hugging Face config may be: its type and its range, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jax_attention.core.checks import fail_unless
from jax_attention.core.foreign_files import MAX_LAYERS
from jax_attention.core.text import quote

MAX_SIZE = 2**31 - 1
"""Largest size: token ids and indices are 32-bit integers."""


class Kind(NamedTuple):
    """What a field may be, in words for messages, and as a test."""

    words: str
    fits: Callable[[Any], bool]

    def or_null(self) -> Kind:
        """The same, or null."""
        return Kind(f"{self.words} or null", lambda x: x is None or self.fits(x))


def _is_int(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _is_number(x: Any) -> bool:
    return (_is_int(x) or isinstance(x, float)) and math.isfinite(x)


def _integer(least: int, most: int) -> Kind:
    return Kind(f"an integer from {least:,} to {most:,}", lambda x: _is_int(x) and least <= x <= most)


SIZE, LAYERS, COUNT = _integer(1, MAX_SIZE), _integer(1, MAX_LAYERS), _integer(0, MAX_SIZE)
RATE = Kind("a number with 0 <= rate < 1", lambda x: _is_number(x) and 0 <= x < 1)
EPSILON = Kind("a number with 0 < epsilon <= 1", lambda x: _is_number(x) and 0 < x <= 1)
POSITIVE = Kind("a number from 1e-30 to 1e30", lambda x: _is_number(x) and 1e-30 <= x <= 1e30)
FRACTION = Kind("a number with 0 < fraction <= 1.001", lambda x: _is_number(x) and 0 < x <= 1.001)
FLAG = Kind("true or false", lambda x: isinstance(x, bool))
TEXT = Kind("a text", lambda x: isinstance(x, str))
OBJECT = Kind("an object", lambda x: isinstance(x, dict))
TEXTS = Kind("a list of texts", lambda x: isinstance(x, list) and all(isinstance(item, str) for item in x))
NUMBERS = Kind(
    "an object of numbers", lambda x: isinstance(x, dict) and all(POSITIVE.fits(number) for number in x.values())
)

FIELDS: dict[Kind, str] = {
    SIZE: """
        vocab_size n_embd n_head hidden_size num_attention_heads num_key_value_heads head_dim intermediate_size
        max_position_embeddings n_positions d_model d_kv d_ff num_heads encoder_attention_heads encoder_ffn_dim
        decoder_attention_heads decoder_ffn_dim dim n_heads hidden_dim sliding_window_pattern
        original_max_position_embeddings relative_attention_num_buckets relative_attention_max_distance
        """,
    SIZE.or_null(): "n_inner sliding_window decoder_vocab_size",
    LAYERS: """
        n_layer num_hidden_layers num_layers num_decoder_layers encoder_layers decoder_layers n_layers
        """,
    COUNT: "type_vocab_size max_window_layers",
    _integer(1, 10**6): "num_labels",  # transformers makes a table of as many names
    RATE: """
        resid_pdrop embd_pdrop attn_pdrop hidden_dropout attention_dropout dropout hidden_dropout_prob
        attention_probs_dropout_prob dropout_rate
        """,
    EPSILON: "layer_norm_epsilon layer_norm_eps rms_norm_eps",
    POSITIVE: """
        rope_theta rotary_emb_base rope_local_base_freq query_pre_attn_scalar factor low_freq_factor high_freq_factor
        beta_fast beta_slow lora_alpha
        """,
    POSITIVE.or_null(): "attn_logit_softcapping final_logit_softcapping attention_factor",
    FRACTION: "rotary_pct",
    FRACTION.or_null(): "partial_rotary_factor",
    FLAG: """
        tie_word_embeddings attention_bias mlp_bias use_sliding_window scale_embedding scale_decoder_outputs
        share_encoder_decoder_embeddings use_parallel_residual truncate use_rslora scale_attn_weights
        scale_attn_by_inverse_layer_idx
        """,
    TEXT: """
        model_type hidden_act hidden_activation activation activation_function feed_forward_proj rope_type type
        peft_type
        """,
    OBJECT.or_null(): "rope_parameters rope_scaling full_attention sliding_attention",
    TEXTS: "layer_types",
    TEXTS.or_null(): "architectures",
    NUMBERS.or_null(): "alpha_pattern",
}
"""Fields of each kind: of `config.json`, of `rope_parameters` and of `adapter_config.json`."""
KINDS: dict[str, Kind] = {name: kind for kind, names in FIELDS.items() for name in names.split()}


def check_field(file: str, name: str, value: Any) -> Any:
    """Return the value of a field if it is of its kind."""
    kind = KINDS[name]
    fail_unless(kind.fits(value), f"{file}: expected {name} to be {kind.words}, got {quote(value)}.")
    return value
