"""Generation with one compiled loop over a cache: samplers of logit transforms, beam search, prompts of any lengths."""

from jax_attention.decoding.beams import Beams, beam_search
from jax_attention.decoding.generate import GenerationResult, generate
from jax_attention.decoding.history import History
from jax_attention.decoding.history_transforms import min_new_tokens, no_repeat_ngram_size, repetition_penalty
from jax_attention.decoding.logit_transforms import (
    LogitTransform,
    greedy,
    min_p,
    temperature,
    top_k,
    top_p,
)
from jax_attention.decoding.prompts import Prompts, pad_prompts
from jax_attention.decoding.sampler import Sampler, sampler
from jax_attention.decoding.text_streaming import StreamChunk

__all__ = [
    "Beams",
    "GenerationResult",
    "History",
    "LogitTransform",
    "Prompts",
    "Sampler",
    "StreamChunk",
    "beam_search",
    "generate",
    "greedy",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "pad_prompts",
    "repetition_penalty",
    "sampler",
    "temperature",
    "top_k",
    "top_p",
]
