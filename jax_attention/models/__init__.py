"""Transformer language models around the rules: a frozen config, and a model that is a plain pytree of parameters."""

from jax_attention.models.body import Body, Layer
from jax_attention.models.body_pair import BodyPair
from jax_attention.models.classifier import Classifier
from jax_attention.models.config import LMConfig
from jax_attention.models.config_json import config_from_json, config_to_json
from jax_attention.models.create import create, scanned, unrolled
from jax_attention.models.encoder_decoder import EncoderDecoder, PairConfig
from jax_attention.models.patch_encoder import PatchEncoder
from jax_attention.models.presets import PRESETS, gemma2, gpt2, llama, tiny
from jax_attention.models.pure import Pure, from_dict, pure, to_dict
from jax_attention.models.results import BodyOutput, Capture, Captured, LMCache, LMOutput, Memory
from jax_attention.models.rnn_config import RNNConfig
from jax_attention.models.rnn_halves import RNNMemory, RNNState
from jax_attention.models.rnn_seq2seq import RNNSeq2Seq
from jax_attention.models.source_model import Given
from jax_attention.models.transformer import TransformerLM

__all__ = [
    "Body",
    "BodyOutput",
    "BodyPair",
    "Capture",
    "Captured",
    "Classifier",
    "EncoderDecoder",
    "Given",
    "Layer",
    "LMCache",
    "LMConfig",
    "LMOutput",
    "Memory",
    "PRESETS",
    "PairConfig",
    "PatchEncoder",
    "Pure",
    "RNNConfig",
    "RNNMemory",
    "RNNSeq2Seq",
    "RNNState",
    "TransformerLM",
    "config_from_json",
    "config_to_json",
    "create",
    "from_dict",
    "gemma2",
    "gpt2",
    "llama",
    "pure",
    "scanned",
    "tiny",
    "to_dict",
    "unrolled",
]
