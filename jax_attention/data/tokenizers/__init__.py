"""Tokenizers: text to token ids and back."""

from jax_attention.data.tokenizers.characters import Bytes, Characters
from jax_attention.data.tokenizers.load import load_tokenizer
from jax_attention.data.tokenizers.subwords import Subwords
from jax_attention.data.tokenizers.tokenizer import StreamDecoder, Tokenizer
from jax_attention.data.tokenizers.words import Words

__all__ = ["Bytes", "Characters", "StreamDecoder", "Subwords", "Tokenizer", "Words", "load_tokenizer"]
