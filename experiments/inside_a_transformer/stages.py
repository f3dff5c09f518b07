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


class Tokenization(NamedTuple):
    """E1: token ids of a sentence, size of the tokenizer's vocabulary, and shape of the embedding of the ids."""

    ids: list[int]
    vocabulary: int
    embedded: tuple[int, ...]


class Stage(NamedTuple):
    """One stage of the model: its name, the shape of its output, and a remark."""

    name: str
    shape: tuple[int, ...]
    remark: str = ""


class FullPass(NamedTuple):
    """E6: all stages, the maps `[layers, heads, T, T]`, the last row of the logits, and the next character."""

    stages: list[Stage]
    weights: np.ndarray
    logits: np.ndarray
    next_id: int
    next_character: str


def han_characters(count: int) -> data.Characters:
    """Tokenizer with exactly `count` Han characters, one id each."""
    points = [point for block in HAN for point in block][:count]
    return data.Characters("".join(map(chr, points)))


def tokenize_and_embed(config: PassConfig, sentence: str, text: str) -> dict[str, Tokenization]:
    """E1: characters, bytes and subwords, with one embedding table each."""
    tokenizers = {
        "characters": data.Characters.train([text, sentence]),
        "bytes": data.Bytes(),
        "subwords": data.Subwords.train([text], vocab_size=config.subwords),
    }
    results = {}
    for name, tokenizer in tokenizers.items():
        ids = tokenizer.encode(sentence)
        shape = embedding_shape(tokenizer.vocab_size, config, ids)
        results[name] = Tokenization(ids.tolist(), tokenizer.vocab_size, shape)
    return results


def embedding_shape(vocabulary: int, config: PassConfig, ids: np.ndarray) -> tuple[int, ...]:
    """Shape of the embedded ids; `eval_shape` finds it without creating the table."""

    def embed(ids: jax.Array) -> jax.Array:
        return nnx.Embed(vocabulary, config.words_width, rngs=nnx.Rngs(config.seed))(ids)

    return jax.eval_shape(embed, ids).shape


def attention_stages(config: PassConfig, length: int) -> list[Stage]:
    """E3: multi-head self-attention; the output projection mixes the heads, and the width stays the same."""

    def weights_and_output(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        layer = nn.MultiHeadAttention(config.words_heads, config.words_width, rngs=nnx.Rngs(config.seed))
        return layer.weights(x, mask=masks.causal()), layer(x, mask=masks.causal())

    x = jax.ShapeDtypeStruct((length, config.words_width), jnp.float32)
    weights, output = jax.eval_shape(weights_and_output, x)  # only the shapes are needed
    size = config.words_width // config.words_heads
    return [
        Stage("words", x.shape),
        Stage("weights", weights.shape, f"{config.words_heads} heads of {size} features"),
        Stage("output", output.shape, "heads concatenated and projected: the width stays"),
    ]


@jax.jit
def _stage_outputs(model: models.TransformerLM, ids: jax.Array) -> dict[str, Any]:
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


def full_pass(config: PassConfig, sentence: str) -> FullPass:
    """E6: all stages from a sentence to its next character."""
    tokenizer = han_characters(config.vocabulary)
    model = models.create(
        models.LMConfig(
            vocab_size=config.vocabulary, width=config.width, depth=config.depth, num_heads=config.heads, context=64
        ),
        config.seed,
    )
    ids = tokenizer.encode(sentence)
    outputs = _stage_outputs(model, jnp.asarray(ids))
    next_id = int(outputs["logits"][0].argmax())
    following = tokenizer.decode([next_id])
    stages = [
        Stage("characters", (len(sentence),), " ".join(sentence)),
        Stage("ids", ids.shape, " ".join(map(str, ids.tolist()))),
        Stage("embedding", outputs["embedded"].shape),
        Stage("plus position", outputs["hidden"][-1].shape),
        *_block_stages(outputs, config.depth),
        Stage("norm", outputs["normed"].shape),
        Stage("last row", outputs["last"].shape),
        Stage("logits", outputs["logits"].shape, "the last row times the transposed embedding"),
        Stage("next character", (1,), f"id {next_id}, U+{ord(following):04X}"),
    ]
    weights = np.stack([outputs["weights"][layer] for layer in range(config.depth)])
    return FullPass(stages, weights, np.asarray(outputs["logits"]), next_id, following)


def _block_stages(outputs: dict[str, Any], depth: int) -> Sequence[Stage]:
    return [
        stage
        for layer in range(depth)
        for stage in (
            Stage(f"block {layer}: weights", outputs["weights"][layer].shape, "heads, queries, keys"),
            Stage(f"block {layer}: stream", outputs["hidden"][layer].shape),
        )
    ]
