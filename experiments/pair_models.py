"""The models that the experiments compare where a source is read and a target is written, and how they write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from experiments.learn import cut
from jax_attention import data, decoding, models, nn, scores

TRANSFORMER = "Transformer"


def rules(size: int) -> dict[str, dict[str, Any]]:
    """What `models.RNNConfig` says of the attention of a recurrent encoder and decoder, by the name of the rule.

    Args:
        size: features of a state, for the cosine divided by their root.
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


RULES = tuple(rules(1))
"""The names, in the order of tables and figures."""


@dataclass(frozen=True)
class Sizes:
    """Of every model: `width` features for a word and a state; `depth` blocks in each half of the Transformer."""

    width: int = 96
    depth: int = 2
    heads: int = 4
    dropout: float = 0.0


def pair_model(
    name: str, source_words: int, target_words: int, sizes: Sizes, longest: int = 64
) -> Callable[[jax.Array], Any]:
    """What makes the model of this name from a random key.

    Args:
        name: one of `RULES`, for a GRU that reads from both ends and a GRU that writes, or `TRANSFORMER`.
        source_words: size of the source's vocabulary.
        target_words: of the target's, `start` and `stop` among them.
        sizes: widths and depth.
        longest: the most words of a source, which "location" has parameters for.
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
            **rules(sizes.width)[name],
        )
    return lambda rng: models.create(config, rng)


def transformer(source_words: int, target_words: int, sizes: Sizes) -> models.EncoderDecoderConfig:
    """Encoder and decoder of equal sizes with rotary positions, which are relative."""
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


def write(
    model: Any, sources: Sequence[Any], *, start: int, stop: int, most: int, batch_size: int = 256
) -> list[list[int]]:
    """The likeliest word after the other, without `stop`, for each source of ids, in their order."""
    written = []
    for first in range(0, len(sources), batch_size):
        part = list(sources[first : first + batch_size])
        part += [part[-1]] * (batch_size - len(part) if first else 0)  # the same program for the last batch
        tokens, positions = data.pad_rows(part)
        given, starts = model.condition(tokens, positions=positions), [[start]] * len(part)
        found = decoding.generate(given, starts, max_new_tokens=most, stop_tokens=stop, beyond_context=True)
        written += cut(found.tokens, stop)
    return written[: len(sources)]
