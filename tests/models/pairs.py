"""Small encoder–decoders of several kinds, and the tokens of a source and a target."""

from __future__ import annotations

from jax_attention import models, normalizers, scores
from tests.models import small

S, T, D = 5, 4, 16
SIZES = {"vocab_size": small.VOCABULARY, "context": small.CONTEXT, "width": D, "ff_size": 24}
KINDS = {
    "post-norm, learned": {"encoder": {}, "decoder": {}, "shared": {"norm_place": "post", "embedding_norm": True}},
    "t5, another rule, groups": {
        "encoder": {"depth": 3, "num_heads": 2},
        "decoder": {"kv_heads": 2, "score_cap": 2.0, "qk_norm": True, "normalize": normalizers.sparsemax()},
        "shared": {"position": "t5", "norm": "rms", "use_bias": False, "score": scores.scaled_dot(1.0)},
    },
    "sandwich, rotary": {
        "encoder": {"windows": (3, None), "depth": 3},
        "decoder": {"windows": (None, 2), "depth": 3, "kv_heads": 1, "tied_head": False, "head_bias": True},
        "shared": {"norm_place": "sandwich", "position": "rotary", "norm": "rms", "activation": "swiglu"},
    },
}
SHARING = {"post-norm, learned": True}


def pair_config(kind: str, **changes) -> models.EncoderDecoderConfig:
    fields = KINDS[kind]
    shared = {"depth": 2, "num_heads": 4} | SIZES | fields["shared"] | changes
    return models.EncoderDecoderConfig(
        encoder=models.LMConfig(**shared | fields["encoder"] | changes, mask=None),
        decoder=models.LMConfig(**shared | fields["decoder"] | changes, memory_size=shared["width"]),
        shared_embedding=SHARING.get(kind, False),
    )


def pair(kind: str, seed: int = 0, **changes) -> models.EncoderDecoder:
    return small.filled(lambda: models.create(pair_config(kind, **changes)), seed)


def logits(model, source, target, **options):
    return small.jit(lambda model, *x: model(*x, **options).logits)(model, source, target)


SOURCE, TARGET = small.tokens(2, S), small.tokens(2, T, seed=1)
