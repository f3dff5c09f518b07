"""E1, E3, E6: one sentence through every stage of a random model, with shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.inside_a_transformer.config import PassConfig
from jax_attention import data, masks, models, nn

HAN = (range(0x4E00, 0xA000), range(0x3400, 0x4DC0), range(0x20000, 0x2A6E0))
"""Unicode's Han characters: the common block and two extensions, 70,304 together."""


class Cut(NamedTuple):
    """E1: the ids that a tokenizer cuts a sentence into, and the shape of their embedding."""

    ids: list[int]
    vocabulary: int
    embedded: tuple[int, ...]


class Stage(NamedTuple):
    """One line of the walk: what happened, and the shape of what came out."""

    name: str
    shape: tuple[int, ...]
    says: str = ""


class Pass(NamedTuple):
    """E6: all stages, the maps `[layers, heads, T, T]`, the last row of the logits, and the next character."""

    stages: list[Stage]
    weights: np.ndarray
    logits: np.ndarray
    next_id: int
    next_character: str


def han_characters(count: int) -> data.Characters:
    """A tokenizer of exactly so many characters, one id each."""
    points = [point for block in HAN for point in block][:count]
    return data.Characters("".join(map(chr, points)))


def cuts(config: PassConfig, sentence: str, text: str) -> dict[str, Cut]:
    """E1: characters, bytes and trained subwords, embedded by one table each."""
    made = {
        "characters": data.Characters.train([text, sentence]),
        "bytes": data.Bytes(),
        "subwords": data.Subwords.train([text], vocab_size=config.subwords),
    }
    found = {}
    for name, tokenizer in made.items():
        ids = tokenizer.encode(sentence)
        found[name] = Cut(ids.tolist(), tokenizer.vocab_size, embedded(tokenizer.vocab_size, config, ids))
    return found


def embedded(vocabulary: int, config: PassConfig, ids: np.ndarray) -> tuple[int, ...]:
    """The shape of the rows of a table; JAX finds it without drawing the table."""
    make = lambda ids: nnx.Embed(vocabulary, config.words_width, rngs=nnx.Rngs(config.seed))(ids)  # noqa: E731
    return jax.eval_shape(make, ids).shape


def heads(config: PassConfig, length: int) -> list[Stage]:
    """E3: self-attention by several heads; an output projection joins them, and the width stays."""

    def weights_and_output(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        layer = nn.MultiHeadAttention(config.words_heads, config.words_width, rngs=nnx.Rngs(config.seed))
        return layer.weights(x, mask=masks.causal()), layer(x, mask=masks.causal())

    x = jax.ShapeDtypeStruct((length, config.words_width), jnp.float32)
    weights, output = jax.eval_shape(weights_and_output, x)  # shapes alone are looked at
    size = config.words_width // config.words_heads
    return [
        Stage("words", x.shape),
        Stage("weights", weights.shape, f"{config.words_heads} heads of {size} features"),
        Stage("output", output.shape, "the heads joined: the width stays"),
    ]


@jax.jit
def _every_stage(model: models.TransformerLM, ids: jax.Array) -> dict[str, Any]:
    out = model(ids, capture=models.Capture(weights="all", hidden="all"))
    normed, _ = model.hidden(ids)
    last = normed[-1:]
    return {
        "embedded": model.embedding[...][ids],
        "hidden": out.captured.hidden,
        "weights": out.captured.weights,
        "normed": normed,
        "last": last,
        "logits": model.unembed(last),
    }


def full_pass(config: PassConfig, sentence: str) -> Pass:
    """E6: from characters to the next character."""
    tokenizer = han_characters(config.vocabulary)
    model = models.create(
        models.LMConfig(
            vocab_size=config.vocabulary, width=config.width, depth=config.depth, num_heads=config.heads, context=64
        ),
        config.seed,
    )
    ids = tokenizer.encode(sentence)
    found = _every_stage(model, jnp.asarray(ids))
    next_id = int(found["logits"][0].argmax())
    following = tokenizer.decode([next_id])
    stages = [
        Stage("characters", (len(sentence),), " ".join(sentence)),
        Stage("ids", ids.shape, " ".join(map(str, ids.tolist()))),
        Stage("embedding", found["embedded"].shape),
        Stage("plus position", found["hidden"][-1].shape),
        *_blocks(found, config.depth),
        Stage("norm", found["normed"].shape),
        Stage("last row", found["last"].shape),
        Stage("logits", found["logits"].shape, "the last row times the transposed embedding"),
        Stage("next character", (1,), f"id {next_id}, U+{ord(following):04X}"),
    ]
    weights = np.stack([found["weights"][layer] for layer in range(config.depth)])
    return Pass(stages, weights, np.asarray(found["logits"]), next_id, following)


def _blocks(found: dict[str, Any], depth: int) -> Sequence[Stage]:
    return [
        stage
        for layer in range(depth)
        for stage in (
            Stage(f"block {layer}: weights", found["weights"][layer].shape, "heads, queries, keys"),
            Stage(f"block {layer}: stream", found["hidden"][layer].shape),
        )
    ]
