"""Generation with one compiled loop over a cache: samplers of logit transforms, beam search, prompts of any lengths."""

from jax_attention.decoding.beams import Beams, beam_search
from jax_attention.decoding.generate import GenerationResult, generate
from jax_attention.decoding.logit_transforms import (
    LogitTransform,
    greedy,
    min_p,
    repetition_penalty,
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
    "LogitTransform",
    "Prompts",
    "Sampler",
    "StreamChunk",
    "beam_search",
    "generate",
    "greedy",
    "min_p",
    "pad_prompts",
    "repetition_penalty",
    "sampler",
    "temperature",
    "top_k",
    "top_p",
]
