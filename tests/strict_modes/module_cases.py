"""Cases of the modules of nn and of all models."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jax_attention import attend, cache, masks, models, mods, nn, positions
from tests.models import small
from tests.strict_modes.modes import Case

B, T, S, D = 2, 4, 5, 8
RNG = np.random.default_rng(0)
X, Y = (RNG.standard_normal(shape).astype(np.float32) for shape in ((B, T, D), (B, S, 6)))
TOKENS = small.tokens(B, T)
SEGMENTS = np.array([[0, 0, 1, 1], [0, 1, 1, 1]], np.int32)


def module(make: Any, call: Any) -> Case:
    return Case(lambda: make(nnx.Rngs(0)), call)


def scored(make: Any) -> Case:
    """Attention by the score that a module holds."""
    return module(make, lambda m: attend(X[0], Y[0, :T], Y[0, :T], score=m.as_score()))


def adapted(rngs: nnx.Rngs) -> tuple:
    linear = nn.MultiHeadAttention(2, D, rngs=rngs)
    return linear, nn.lora(linear, 2, jax.random.key(0))


NN = {
    "nn.Attn": module(lambda r: nn.Attn(D, 6, S, 6, 7, rngs=r), lambda m: m(X[0], Y[0, :T], Y[0])),
    "nn.SelfAttention": module(lambda r: nn.SelfAttention(D, mask=masks.causal(), rngs=r), lambda m: m(X)),
    "nn.MultiHeadAttention": module(
        lambda r: nn.MultiHeadAttention(
            4,
            D,
            kv_heads=2,
            packed=True,
            rope=positions.rotary(scaling=positions.dynamic_scaling(2.0, 3)),
            mods=(nn.LearnedPart(mods.alibi(positions.alibi_slopes(4))),),
            mask=masks.causal(),
            rngs=r,
        ),
        lambda m: m(X),
    ),
    "nn.MultiHeadAttention, cross": module(
        lambda r: nn.MultiHeadAttention(2, D, key_size=6, bias_kv=True, rngs=r),
        lambda m: (m(X, Y), m.weights(X, Y)),
    ),
    "nn.MultiHeadAttention, step": module(
        lambda r: nn.MultiHeadAttention(2, D, mask=masks.sliding_window(3), rngs=r),
        lambda m: m.step(X, cache.create(8, 2, 4, batch=(B,)))[0],
    ),
    "nn.MultiHeadAttention, memory": module(
        lambda r: nn.MultiHeadAttention(2, D, key_size=6, rngs=r),
        lambda m: m.cross_attend(X, m.project_memory(Y)),
    ),
    "nn.FeedForward": module(lambda r: nn.FeedForward(D, 12, activation="swiglu", rngs=r), lambda m: m(X)),
    "nn.Linear": module(lambda r: nn.Linear(D, 3, rngs=r), lambda m: m(X)),
    "nn.GRU": module(lambda r: nn.GRU(D, 4, bidirectional=True, rngs=r), lambda m: m(X, lengths=SEGMENTS[:, 1] + 2)[0]),
    "nn.LSTM": module(lambda r: nn.LSTM(D, 4, rngs=r), lambda m: m(X)[0]),
    "nn.Additive": scored(lambda r: nn.Additive(D, 6, 5, rngs=r)),
    "nn.Concat": scored(lambda r: nn.Concat(D, 6, rngs=r)),
    "nn.General": scored(lambda r: nn.General(D, 6, rngs=r)),
    "nn.Location": scored(lambda r: nn.Location(D, 6, T, rngs=r)),
    "nn.LearnedPart": module(
        lambda r: nn.LearnedPart(mods.temperature(np.ones((), np.float32))), lambda m: attend(X, X, X, mods=(m.value,))
    ),
    "nn.lora": module(adapted, lambda x: nn.apply_adapters(*x)(X)),
    "nn.apply_adapters": module(adapted, lambda x: nn.apply_adapters(*x)(X)),
}


def language_model(scheme: str, **changes: Any) -> Case:
    """Packed rows with dropout, and a cached call that captures weights."""
    config = small.config(scheme, dropout=0.1, **changes)

    def call(model: models.TransformerLM) -> tuple:
        at = {"positions": jnp.arange(T, dtype=jnp.int32), "segment_ids": SEGMENTS}
        packed = model(TOKENS, **at, rng=jax.random.key(1))
        cached = model(TOKENS, cache=model.init_cache((B,)), capture=models.Capture("all", "all"))
        return packed.logits, cached.logits

    return Case(lambda: models.create(config), call)


def preset(config: models.LMConfig) -> Case:
    return Case(lambda: models.create(config), lambda m: m(TOKENS).logits)


SMALL = {"vocab_size": small.VOCABULARY, "context": 12, "width": 16, "depth": 1, "num_heads": 2, "ff_size": 24}
STACK = {"vocab_size": 1, "width": D, "depth": 1, "num_heads": 2, "mask": None, "position": "none"}
READER = models.LMConfig(**{**SMALL, "width": D}, mask=None)
WRITER = models.LMConfig(**{**SMALL, "width": D}, memory_size=D)
BOTH = models.EncoderDecoderConfig(encoder=READER, decoder=WRITER)
RECURRENT = models.RNNConfig(
    source_vocab_size=small.VOCABULARY, vocab_size=small.VOCABULARY, hidden_size=8, width=8, score=nn.Additive
)
SCAN = models.LMConfig(**{**SMALL, "depth": 2}, scan=True)

MODELS = {
    "models.TransformerLM": language_model("rotary", depth=1),
    **{f"models.TransformerLM, {name}": language_model(name, depth=1) for name in small.SCHEMES if name != "rotary"},
    "models.TransformerLM, bfloat16": language_model("rotary", depth=1, dtype="bfloat16"),
    "models.gpt2": preset(models.gpt2(**SMALL)),
    "models.llama": preset(models.llama(**SMALL, kv_heads=1)),
    "models.gemma2": preset(models.gemma2(**SMALL, kv_heads=1, head_size=8)),
    "models.tiny": preset(models.tiny(vocab_size=small.VOCABULARY, width=16, num_heads=2, depth=1)),
    "models.create": preset(SCAN),
    "models.unroll_layers": Case(lambda: models.create(SCAN), lambda m: models.unroll_layers(m)(TOKENS).logits),
    "models.scan_layers": Case(
        lambda: models.create(SCAN), lambda m: models.scan_layers(models.unroll_layers(m))(TOKENS).logits
    ),
    "models.untie_head": Case(lambda: models.create(SCAN), lambda m: models.untie_head(m)(TOKENS).logits),
    "models.to_dict": Case(lambda: models.create(SCAN), models.to_dict),
    "models.from_dict": Case(
        lambda: models.to_dict(models.create(SCAN)), lambda p: models.from_dict(SCAN, p)(TOKENS).logits
    ),
    "models.pure_model": Case(
        lambda: models.pure_model(SCAN).init(0), lambda p: models.pure_model(SCAN).apply(p, TOKENS).logits
    ),
    "models.TransformerStack": module(
        lambda r: models.TransformerStack(models.LMConfig(**STACK), rngs=r), lambda m: m(X, mask=masks.causal())
    ),
    "models.TransformerLayer": module(
        lambda r: models.TransformerLayer(models.LMConfig(**STACK, final_norm=False), rngs=r), lambda m: m(X)
    ),
    "models.EncoderDecoderStack": module(
        lambda r: models.EncoderDecoderStack(models.LMConfig(**STACK), models.LMConfig(**STACK, memory_size=D), rngs=r),
        lambda m: m(X, X[:, :3], mask=masks.causal()),
    ),
    "models.Classifier": module(lambda r: models.Classifier(READER, 3, rngs=r), lambda m: m(TOKENS).logits),
    "models.PatchEncoder": module(
        lambda r: models.PatchEncoder(models.LMConfig(**STACK), image=(4, 4, 1), patch=(2, 2), rngs=r),
        lambda m: m(X.reshape(4, 4, 4, 1)),
    ),
    "models.EncoderDecoder": Case(lambda: models.create(BOTH), lambda m: m(TOKENS, TOKENS).logits),
    "models.RNNSeq2Seq": Case(lambda: models.create(RECURRENT), lambda m: m(TOKENS, TOKENS).logits),
    "models.ConditionedDecoder": Case(lambda: models.create(BOTH), lambda m: m.condition(TOKENS)(TOKENS).logits),
}

CASES = NN | MODELS
