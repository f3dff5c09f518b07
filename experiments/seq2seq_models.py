"""Encoder-decoder models by the name of their attention rule, and their greedy decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from experiments.seed_training import truncate_at_stop
from jax_attention import data, decoding, models, nn, scores

TRANSFORMER = "Transformer"


def rule_fields(size: int) -> dict[str, dict[str, Any]]:
    """Fields of `models.RNNConfig` that choose an attention rule, by the name of the rule.

    Args:
        size: features of a state; one of the cosine rules divides by its square root.
    """
    return {
        "no attention": {},
        "dot": {"score": scores.dot()},
        "scaled dot": {"score": scores.scaled_dot()},
        "cosine": {"score": scores.cosine()},
        "cosine, scale 10": {"score": scores.cosine(10.0)},
        "cosine / sqrt(d)": {"score": scores.cosine(size**-0.5)},
        "general": {"score": nn.General},
        "additive": {"score": nn.Additive},
        "additive, plain sum": {"score": nn.Additive, "attention_vector": False},
        "concat": {"score": nn.Concat},
        "location": {"score": nn.Location},
    }


RULES = tuple(rule_fields(1))
"""Names of the rules, in the order of tables and figures."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of every model: `width` features of a word and a state; `depth` blocks in the Transformer's two stacks."""

    width: int = 96
    depth: int = 2
    heads: int = 4
    dropout: float = 0.0


def seq2seq_model(
    name: str, source_words: int, target_words: int, sizes: Sizes, longest: int = 64
) -> Callable[[jax.Array], Any]:
    """Function that creates the model of this name from a random key.

    Args:
        name: one of `RULES`, for a bidirectional GRU encoder and a GRU decoder, or `TRANSFORMER`.
        source_words: size of the source's vocabulary.
        target_words: size of the target's vocabulary, including `start` and `stop`.
        sizes: widths and depth.
        longest: largest number of words of a source; the rule "location" has parameters for each of them.
    """
    config = transformer(source_words, target_words, sizes)
    if name != TRANSFORMER:
        config = models.RNNConfig(
            source_vocab_size=source_words,
            vocab_size=target_words,
            context=longest,
            width=sizes.width,
            hidden_size=sizes.width,
            dropout=sizes.dropout,
            **rule_fields(sizes.width)[name],
        )
    return lambda rng: models.create(config, rng)


def transformer(source_words: int, target_words: int, sizes: Sizes) -> models.EncoderDecoderConfig:
    """Config of a Transformer with encoder and decoder of equal sizes and rotary (relative) positions."""
    shared = {
        "width": sizes.width,
        "depth": sizes.depth,
        "num_heads": sizes.heads,
        "position": "rotary",
        "dropout": sizes.dropout,
    }
    encoder = models.LMConfig(vocab_size=source_words, mask=None, **shared)
    decoder = models.LMConfig(vocab_size=target_words, memory_size=sizes.width, **shared)
    return models.EncoderDecoderConfig(encoder=encoder, decoder=decoder)


def greedy_decode(
    model: Any, sources: Sequence[Any], *, start: int, stop: int, max_words: int, batch_size: int = 256
) -> list[list[int]]:
    """Greedy translations, without `stop`, of sources of token ids, in the order of the sources."""
    outputs = []
    for first in range(0, len(sources), batch_size):
        batch = list(sources[first : first + batch_size])
        # Fill up the last batch: a smaller one would compile another program.
        batch += [batch[-1]] * (batch_size - len(batch) if first else 0)
        tokens, positions = data.pad_rows(batch)
        decoder, prompts = model.condition(tokens, positions=positions), [[start]] * len(batch)
        generated = decoding.generate(decoder, prompts, max_new_tokens=max_words, stop_tokens=stop, beyond_context=True)
        outputs += truncate_at_stop(generated.tokens, stop)
    return outputs[: len(sources)]
