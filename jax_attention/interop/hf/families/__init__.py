"""The model families of Hugging Face, one file each, or one for a group that shares most."""

from jax_attention.interop.hf.families.bart import BART
from jax_attention.interop.hf.families.bert import BERT
from jax_attention.interop.hf.families.distilbert import DISTILBERT
from jax_attention.interop.hf.families.gemma import GEMMA, GEMMA2, GEMMA3
from jax_attention.interop.hf.families.gpt2 import GPT2
from jax_attention.interop.hf.families.gpt_neox import GPT_NEOX
from jax_attention.interop.hf.families.llama import LLAMA, MISTRAL, OLMO2, PHI3, QWEN2, QWEN3
from jax_attention.interop.hf.families.marian import MARIAN
from jax_attention.interop.hf.families.roberta import ROBERTA
from jax_attention.interop.hf.families.t5 import T5

DECODERS = (GPT2, GPT_NEOX, LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3, PHI3, OLMO2)
ENCODERS = (BERT, ROBERTA, DISTILBERT)
ENCODER_DECODERS = (T5, BART, MARIAN)
FAMILIES = DECODERS + ENCODERS + ENCODER_DECODERS
"""All families, in the order in which `save` tries them."""

__all__ = ["DECODERS", "ENCODERS", "ENCODER_DECODERS", "FAMILIES"]
