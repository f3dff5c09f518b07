"""Wrong calls of encoder–decoders are refused: messages name the argument, what was expected and got, and a cure."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import decoding, models
from tests.models import small
from tests.models.pairs import SIZES, SOURCE, TARGET, D, S, pair

ENCODER = models.LMConfig(**SIZES, num_heads=2, mask=None)
DECODER = models.LMConfig(**SIZES, num_heads=2, memory_size=D)


STATES = jnp.asarray(np.ones((2, S, D), np.float32))


def make(config):
    """A model with random parameters, made without compiling its initialisation."""
    return small.filled(lambda: models.create(config))


BAD = {
    "no memory size": (
        lambda: models.EncoderDecoderConfig(encoder=ENCODER, decoder=dataclasses.replace(DECODER, memory_size=None)),
        r"decoder: expected memory_size = 16, the width of the encoder, got None\.",
    ),
    "an encoder with a memory": (
        lambda: models.EncoderDecoderConfig(encoder=DECODER, decoder=DECODER),
        r"encoder: expected memory_size None",
    ),
    "a dict": (lambda: models.EncoderDecoderConfig(encoder={}, decoder=DECODER), r"encoder: expected models.LMConfig"),
    "two vocabularies": (
        lambda: models.EncoderDecoderConfig(
            encoder=ENCODER, decoder=dataclasses.replace(DECODER, vocab_size=3), shared_embedding=True
        ),
        r"shared_embedding: expected equal \[vocab_size, width\] in encoder and decoder, got \(13, 16\) and \(3, 16\)",
    ),
    "parallel": (
        lambda: dataclasses.replace(DECODER, norm_place="parallel"),
        r"memory_size: expected None with norm_place='parallel'",
    ),
    "forgotten memory": (
        lambda: make(DECODER)(TARGET),
        r"memory: expected models.Memory, got a value of type NoneType. Make it by model.project_memory\(states\)\.",
    ),
    "states instead of a memory": (
        lambda: make(DECODER)(TARGET, memory=STATES),
        r"memory: expected models.Memory, got a value of type ArrayImpl",
    ),
    "a cache": (
        lambda: make(DECODER)(TARGET, memory=make(DECODER).init_cache((2,))),
        r"memory: expected models.Memory, got a value of type LMCache",
    ),
    "a memory of another layout": (
        lambda: make(DECODER)(
            TARGET, memory=make(dataclasses.replace(DECODER, scan=True)).project_memory(jnp.ones((2, S, D)))
        ),
        r"memory: expected 0 stacked and 4 single layers, got 1 and 0\.",
    ),
    "a memory of more sources": (
        lambda: make(DECODER)(TARGET, memory=make(DECODER).project_memory(jnp.ones((3, S, D)))),
        r"memory: expected batch dimensions that broadcast to those of the target, \(2,\), got \(3,\)\.",
    ),
    "more sources": (
        lambda: pair("post-norm, learned")(SOURCE, TARGET[0]),
        r"target: expected the batch dimensions of the source, \(2,\), got \(\)\.",
    ),
    "fewer prompts": (
        lambda: decoding.generate(pair("post-norm, learned").condition(SOURCE), [1], max_new_tokens=2),
        r"memory: expected batch dimensions that broadcast to those of the target, \(\), got \(2,\)\.",
    ),
    "a long source": (
        lambda: pair("post-norm, learned").condition(jnp.zeros(small.CONTEXT + 1, int)),
        r"tokens: expected at most context = 12 tokens",
    ),
    "layouts": (
        lambda: models.EncoderDecoderConfig(encoder=dataclasses.replace(ENCODER, scan=True), decoder=DECODER),
        r"scan: expected the same in encoder and decoder, got True and False\.",
    ),
    "dtypes": (
        lambda: models.EncoderDecoderConfig(
            encoder=ENCODER, decoder=dataclasses.replace(DECODER, param_dtype="bfloat16")
        ),
        r"param_dtype: expected the same in encoder and decoder, got 'float32' and 'bfloat16'\.",
    ),
    "sharing": (
        lambda: models.EncoderDecoderConfig(encoder=ENCODER, decoder=DECODER, shared_embedding="x"),
        r"shared_embedding: expected True or False",
    ),
    "a memory too many": (
        lambda: small.model("none")(TARGET, memory=make(DECODER).project_memory(jnp.ones((S, D)))),
        r"memory: expected None, as memory_size of the config is None",
    ),
    "a memory without cross-attention": (
        lambda: small.model("none").project_memory(jnp.ones((S, D))),
        r"memory_size: expected a model with cross-attention, got None",
    ),
    "states of another size": (
        lambda: make(DECODER).project_memory(jnp.ones((S, D + 1))),
        r"states: expected a memory \[..., S, memory_size = 16\], got float32\[5,17\]",
    ),
    "positions": (
        lambda: pair("post-norm, learned")(SOURCE, TARGET, source_positions=jnp.arange(S + 1)),
        r"positions: expected one position per row, \[..., 5\], got int32\[6\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_calls_are_refused(name):
    call, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        jax.eval_shape(call)
