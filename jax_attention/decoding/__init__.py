"""Generation: sampling rules as values, prompts of any lengths, and one compiled loop around a functional cache."""

from jax_attention.decoding.beams import Beams, beam_search
from jax_attention.decoding.generate import GenerationResult, generate
from jax_attention.decoding.prompts import Prompts, pad_prompts
from jax_attention.decoding.rules import LogitTransform, greedy, repetition_penalty, temperature
from jax_attention.decoding.sampler import Sampler, sampler
from jax_attention.decoding.text import StreamChunk
from jax_attention.decoding.truncation import min_p, top_k, top_p

__all__ = [
    "Beams",
    "GenerationResult",
    "StreamChunk",
    "Prompts",
    "LogitTransform",
    "Sampler",
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
