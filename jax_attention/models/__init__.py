"""Transformer language models around the rules: a frozen config, and a model that is a plain pytree of parameters."""

from jax_attention.models.classifier import Classifier
from jax_attention.models.config import LMConfig
from jax_attention.models.config_json import config_from_json, config_to_json
from jax_attention.models.create import create, scan_layers, unroll_layers, untie_head
from jax_attention.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from jax_attention.models.encoder_decoder_stack import EncoderDecoderStack
from jax_attention.models.patch_encoder import PatchEncoder
from jax_attention.models.presets import PRESETS, gemma2, gpt2, llama, tiny
from jax_attention.models.pure import PureModel, from_dict, pure_model, to_dict
from jax_attention.models.results import Capture, CaptureResult, LMCache, LMOutput, Memory, StackOutput
from jax_attention.models.rnn_config import RNNConfig
from jax_attention.models.rnn_encoder_decoder import RNNMemory, RNNState
from jax_attention.models.rnn_seq2seq import RNNSeq2Seq
from jax_attention.models.seq2seq_model import ConditionedDecoder
from jax_attention.models.transformer import TransformerLM
from jax_attention.models.transformer_stack import TransformerLayer, TransformerStack

__all__ = [
    "TransformerStack",
    "StackOutput",
    "EncoderDecoderStack",
    "Capture",
    "CaptureResult",
    "Classifier",
    "EncoderDecoder",
    "ConditionedDecoder",
    "TransformerLayer",
    "LMCache",
    "LMConfig",
    "LMOutput",
    "Memory",
    "PRESETS",
    "EncoderDecoderConfig",
    "PatchEncoder",
    "PureModel",
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
    "pure_model",
    "scan_layers",
    "tiny",
    "to_dict",
    "unroll_layers",
    "untie_head",
]
