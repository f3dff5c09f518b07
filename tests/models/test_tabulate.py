"""`flax.nnx.tabulate` of every public layer and model (flax#3962, flax#5067)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jax_attention import masks, models, mods, nn, normalizers, positions, scores
from tests.models import small, small_rnn
from tests.models.pairs import pair
from tests.support.tiers import slow_except

D = 8
X, TOKENS = jnp.ones((2, 5, D)), small.tokens(2, 5)
WIDE = {"width": 200, "force_terminal": False}


def with_rngs(make: Callable, *arguments: Any, **options: Any) -> Callable[[], Any]:
    """A factory of the module."""
    return partial(make, *arguments, **options, rngs=nnx.Rngs(0))


def attn() -> nn.Attn:
    return nn.Attn(D, D, None, D, D, score=nn.Additive(D, D, 5, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))


class Temperature(nn.PartModule):
    """A temperature for each query, from its row."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        self.linear = nn.Linear(size, 1, rngs=rngs)

    def as_part(self, x: jax.Array) -> Any:
        scale = jax.nn.softplus(self.linear(x))[..., None, :, :]
        return mods.as_mod(lambda z, q_pos, k_pos: z * scale)


CASES: dict[str, tuple[Callable[[], Any], tuple]] = {
    "Linear": (with_rngs(nn.Linear, D, 3), (X,)),
    "FeedForward": (with_rngs(nn.FeedForward, D, 16, activation="swiglu"), (X,)),
    "SelfAttention": (with_rngs(nn.SelfAttention, D, mask=masks.causal(), normalize=normalizers.entmax15()), (X,)),
    "MultiHeadAttention": (
        with_rngs(nn.MultiHeadAttention, 4, D, kv_heads=2, rope=positions.rotary(), mask=masks.causal()),
        (X,),
    ),
    "MultiHeadAttention(packed, cross)": (with_rngs(nn.MultiHeadAttention, 2, D, packed=True), (X, X + 1)),
    "MultiHeadAttention(learned parts)": (
        with_rngs(
            nn.MultiHeadAttention,
            2,
            D,
            score=nn.LearnedPart(scores.cosine(2.0)),
            mods=(nn.LearnedPart(mods.alibi(positions.alibi_slopes(2))), lambda z, q, k: z),
            bias_kv=True,
        ),
        (X,),
    ),
    "MultiHeadAttention(part module)": (
        with_rngs(nn.MultiHeadAttention, 2, D, mods=(Temperature(D, rngs=nnx.Rngs(0)),)),
        (X,),
    ),
    "Attn": (attn, (X, X, X)),
    "Attn(Location)": (with_rngs(nn.Attn, D, D, 5, D, 3), (X, X, X)),
    "GRU": (with_rngs(nn.GRU, D, 4, bidirectional=True), (X,)),
    "LSTM": (with_rngs(nn.LSTM, D, 4, num_layers=2), (X,)),
    **{f"TransformerLM({scheme})": (partial(small.model, scheme), (TOKENS,)) for scheme in small.SCHEMES},
    "TransformerLM(scan)": (partial(small.model, scan=True), (TOKENS,)),
    "Classifier": (with_rngs(models.Classifier, small.config("none", mask=None), 3), (TOKENS,)),
    "PatchEncoder": (
        with_rngs(models.PatchEncoder, small.config("learned", mask=None), image=(4, 4, 1), patch=(2, 2)),
        (jnp.ones((2, 4, 4, 1)),),
    ),
    "TransformerStack": (with_rngs(models.TransformerStack, small.config("t5")), (jnp.ones((2, 5, 16)),)),
    "TransformerLayer": (
        with_rngs(models.TransformerLayer, small.config("rotary", depth=1, windows=(3,), final_norm=False)),
        (jnp.ones((2, 5, 16)),),
    ),
    "EncoderDecoderStack": (
        with_rngs(models.EncoderDecoderStack, small.config("none"), small.config("alibi", memory_size=16)),
        (jnp.ones((2, 5, 16)), jnp.ones((2, 3, 16))),
    ),
    "EncoderDecoder": (partial(pair, "post-norm, learned"), (TOKENS, TOKENS[:, :3])),
    "EncoderDecoder(scan)": (partial(pair, "t5, another rule, groups", scan=True), (TOKENS, TOKENS[:, :3])),
    "ConditionedDecoder": (lambda: pair("post-norm, learned").condition(TOKENS), (TOKENS,)),
    **{
        f"RNNSeq2Seq({score})": (partial(small_rnn.seq2seq, score), (TOKENS, TOKENS[:, :3] % 7))
        for score in ("none", "additive", "location")
    },
}
NOT_CALLED = {
    **dict.fromkeys(("Additive", "General", "Concat", "Location"), "parameters of a score; Attn calls it"),
    "LearnedPart": "parameters of a part of a rule; MultiHeadAttention(learned parts) lists them",
    "PartModule": "a base class; MultiHeadAttention(part module) has one of its kind",
    "Adapters": "a struct: changes of the weights of a model",
}
"""Public modules that are no layers, and the reason."""


def test_every_public_module_is_tabulated():
    public = {
        name
        for package in (nn, models)
        for name in package.__all__
        if inspect.isclass(x := getattr(package, name)) and issubclass(x, nnx.Module)
    }
    assert public - set(NOT_CALLED) == {name.split("(")[0] for name in CASES}
    assert set(nn.__all__) >= set(NOT_CALLED)


QUICK = ("SelfAttention", "MultiHeadAttention(part module)", "GRU", "TransformerLM(scan)", "EncoderDecoder")


@pytest.mark.parametrize("name", slow_except(QUICK, CASES))
def test_the_table_counts_every_parameter(name):
    """Its total is the number of all parameters, with the memory of a decoder."""
    make, arguments = CASES[name]
    module = make()
    text = nnx.tabulate(module, *arguments, console_kwargs=WIDE)
    count = sum(x.size for x in jax.tree.leaves(nnx.state(module)))
    assert f"Total Parameters: {count:,} (" in text
    assert f"{type(module).__name__} Summary" in text


def test_a_table_shows_the_layers_of_a_model():
    text = nnx.tabulate(small.model("learned"), TOKENS, console_kwargs=WIDE)
    for path in ("blocks/rest/0/attention/out", "blocks/rest/1/feed_forward/up", "final_norm"):
        assert path in text


def test_calls_are_as_before_after_a_table():
    """`nnx.tabulate` replaces methods of the classes while it runs."""
    model = small.model("learned")
    before = model(TOKENS).logits
    nnx.tabulate(model, TOKENS, console_kwargs=WIDE)
    assert bool((model(TOKENS).logits == before).all())
