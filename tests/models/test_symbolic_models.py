"""Models with symbolic batch sizes and lengths: one exported program for all sizes, with gradients of parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

from jax_attention import masks, models, normalizers, scores
from jax_attention.cache import EMPTY
from tests.models import small, small_rnn
from tests.models.pairs import pair
from tests.support.arrays import normal
from tests.support.exporting import SIZES, SYMBOLIC, check_exported, like, spec, symbolic_sizes
from tests.support.tiers import slow_except

WIDTH = 16


def module(make: Callable) -> Any:
    """A module with random parameters."""
    return small.filled(lambda: make(rngs=nnx.Rngs(0)))


CASES: dict[str, tuple[Callable[[], Any], Callable]] = {
    **{
        f"TransformerLM({scheme})": (lambda scheme=scheme: small.model(scheme), lambda m, x: m(x).logits)
        for scheme in small.SCHEMES
    },
    "TransformerLM(scan)": (lambda: small.model(scan=True), lambda m, x: m(x).logits),
    "TransformerLM(cache)": (
        lambda: small.model("learned"),
        lambda m, x: m(x, cache=m.init_cache(x.shape[:-1])),
    ),
    "TransformerLM(cache, scan)": (
        lambda: small.model(scan=True),
        lambda m, x: m(x[..., -1:], cache=m(x, cache=m.init_cache(x.shape[:-1])).cache),
    ),
    "TransformerLM(padding, segments)": (
        small.model,
        lambda m, x: m(x, positions=jnp.where(x == 0, EMPTY, x), segment_ids=x // 5).logits,
    ),
    "TransformerLM(dropout, capture)": (
        lambda: small.model("alibi", dropout=0.2, attention_dropout=0.2),
        lambda m, x: m(x, rng=jax.random.key(1), capture=models.Capture(weights="all", hidden="all")),
    ),
    "TransformerLM(linear attention)": (
        lambda: small.model("none", score=scores.features("relu"), normalize=normalizers.proportional()),
        lambda m, x: m(x).logits,
    ),
    "TransformerLM(remat)": (lambda: small.model("none", remat="full"), lambda m, x: m(x).logits),
    "Classifier": (
        lambda: module(partial(models.Classifier, small.config("learned", mask=None), 3)),
        lambda m, x: m(x).logits,
    ),
    "EncoderDecoder": (lambda: pair("post-norm, learned"), lambda m, x: m(x, x).logits),
    "EncoderDecoder.condition": (lambda: pair("post-norm, learned"), lambda m, x: m.condition(x).hidden(x)[0]),
    "RNNSeq2Seq": (lambda: small_rnn.seq2seq("additive"), lambda m, x: m(x, x % 7).logits),
}
QUICK = ["TransformerLM(cache)-both"]
TABLE = [pytest.param(name, kind, id=f"{name}-{kind}") for name in CASES for kind in SYMBOLIC]


@pytest.mark.parametrize(("name", "kind"), slow_except(QUICK, TABLE))
def test_one_exported_model_is_right_at_every_size(name, kind):
    make, call = CASES[name]
    model = make()
    arguments = [(model, small.tokens(*sizes)) for sizes in SIZES[kind]]
    check_exported(call, (like(model), spec(*symbolic_sizes(kind), dtype=jnp.int32)), arguments, (0,))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SYMBOLIC)
def test_one_exported_stack_is_right_at_every_size(kind):
    stack = module(partial(models.TransformerStack, small.config("rotary")))
    arguments = [(stack, normal(0, *sizes, WIDTH, dtype="float32")) for sizes in SIZES[kind]]
    specs = (like(stack), spec(*symbolic_sizes(kind), WIDTH))
    check_exported(lambda m, x: m(x, mask=masks.causal()), specs, arguments, (0, 1))


@pytest.mark.slow
def test_images_may_have_a_symbolic_batch():
    config = small.config("learned", mask=None)
    encoder = module(partial(models.PatchEncoder, config, image=(4, 4, 1), patch=(2, 2)))
    (b,) = export.symbolic_shape("b")
    images = normal(0, 3, 4, 4, 1, dtype="float32")
    check_exported(lambda m, x: m(x), (like(encoder), spec(b, 4, 4, 1)), [(encoder, images)], (0, 1))


def test_parameters_as_dicts_make_a_program_that_can_be_stored():
    """Programs are stored with the names of their arguments, and nested dicts need no registered class."""
    config = small.config("learned")
    params = models.to_dict(small.model("learned"))
    program = export.export(jax.jit(lambda params, x: models.from_dict(config, params)(x).logits))(
        like(params), spec(*symbolic_sizes("both"), dtype=jnp.int32)
    )
    stored = export.deserialize(program.serialize())
    x = small.tokens(2, 5)
    np.testing.assert_allclose(stored.call(params, x), small.model("learned")(x).logits, **small.CLOSE)


def test_tokens_beyond_a_learned_table_of_positions_give_nan():
    """A known number of tokens is refused; a symbolic one has no right row of the table."""
    model = small.model("learned")
    program = export.export(jax.jit(lambda x: model(x).logits))(spec(*symbolic_sizes("both"), dtype=jnp.int32))
    logits = program.call(small.tokens(1, small.CONTEXT + 2))
    assert bool(jnp.isnan(logits[:, small.CONTEXT :]).all())


@pytest.mark.slow
def test_a_location_score_needs_a_bound_of_the_source():
    """Its parameters belong to the rows of the source."""
    model = small_rnn.seq2seq("location", context=5)
    run = lambda m, x: m(x, x % 7).logits  # noqa: E731
    x = spec(*symbolic_sizes("both"), dtype=jnp.int32)
    with pytest.raises(ValueError, match=r"source: expected at most context = .* tokens, .*, got t"):
        jax.eval_shape(run, model, x)
    b, t = export.symbolic_shape("b, t", constraints=["t <= 5"])
    check_exported(run, (like(model), spec(b, t, dtype=jnp.int32)), [(model, small.tokens(2, 4))], (0,))
