"""Wrong calls of `generate` raise before any work starts, name the argument, and say what to do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import decoding, masks
from tests.models import small
from tests.support.successor_model import LetterTokenizer, transformer

MODEL, LEARNED = transformer("rotary"), transformer("learned")
WARM = decoding.sampler(decoding.temperature(0.8))
RNG = jax.random.key(0)


def call(prompt=(1, 2), model=MODEL, max_new_tokens=4, **options):
    return decoding.generate(model, list(prompt), max_new_tokens=max_new_tokens, **options)


class NoDecode:
    pass


WRONG = {
    "an empty prompt": (dict(prompt=[]), ValueError, r"prompt: expected at least one token, got an empty prompt"),
    "an empty row": (dict(prompt=[[1], []]), ValueError, r"prompts\[1\]: expected at least one token"),
    "an unknown token": (dict(prompt=[1, 13]), ValueError, r"prompt: expected token ids from 0 to 12.*got 13\. Encode"),
    "a negative token": (dict(prompt=[-1]), ValueError, r"got -1"),
    "a long prompt": (dict(prompt=[1] * 41), ValueError, r"prompt: .*context of 40, got 41 tokens\. Keep the last"),
    "too many new tokens": (
        dict(prompt=[1] * 30, max_new_tokens=11),
        ValueError,
        r"max_new_tokens: .*context of 40, got 30 \+ 11\. Keep the last 29 tokens.*lower max_new_tok.*beyond_context",
    ),
    "no new tokens": (dict(max_new_tokens=0), ValueError, r"max_new_tokens: expected an int >= 1"),
    "beyond a learned table": (
        dict(model=LEARNED, beyond_context=True),
        ValueError,
        r"beyond_context: expected False for learned positions",
    ),
    "no rng": (
        dict(sampler=WARM),
        ValueError,
        r"rng: expected a JAX random key to draw tokens by sampler\(temp.*got None",
    ),
    "a seed": (dict(sampler=WARM, rng=0), TypeError, r"rng: expected a JAX random key, got 0\. Make one"),
    "many rngs": (
        dict(sampler=WARM, rng=jax.random.split(RNG, 2)),
        ValueError,
        r"rng: expected one key, .* use num_samples=",
    ),
    "greedy with rng": (dict(rng=RNG), ValueError, r"rng: expected None, as greedy\(\) draws nothing"),
    "greedy samples": (dict(num_samples=2), ValueError, r"num_samples: expected None, as greedy\(\)"),
    "zero samples": (dict(sampler=WARM, rng=RNG, num_samples=0), ValueError, r"num_samples: expected an int >= 1"),
    "a tuple of transforms": (
        dict(sampler=(decoding.temperature(0.5), decoding.top_k(3)), rng=RNG),
        TypeError,
        r"sampler: .*Compose transforms by sampler\(\*transforms\)",
    ),
    "an unknown stop token": (dict(stop_tokens=13), ValueError, r"stop_tokens: expected token ids below 13.*got 13"),
    "a stop token of text": (dict(stop_tokens=["x"]), TypeError, r"stop_tokens: .*strings go into stop_strings="),
    "strings without tokenizer": (dict(stop_strings="x"), ValueError, r"tokenizer: expected an object with decode"),
    "a minimum without stop tokens": (
        dict(sampler=decoding.sampler(decoding.greedy(), decoding.min_new_tokens(2))),
        ValueError,
        r"min_new_tokens: expected stop_tokens with it.*got none\. Pass stop_tokens=",
    ),
    "a minimum above the limit": (
        dict(sampler=decoding.sampler(decoding.greedy(), decoding.min_new_tokens(5)), stop_tokens=1),
        ValueError,
        r"min_new_tokens: expected at most max_new_tokens = 4, got 5",
    ),
    "an empty stop string": (
        dict(stop_strings=("",), tokenizer=LetterTokenizer()),
        TypeError,
        r"stop_strings: expected non-empty strings",
    ),
    "no decode": (dict(tokenizer=NoDecode()), TypeError, r"tokenizer: expected .* got NoDecode"),
    "a stream": (dict(stream=3), TypeError, r"stream: expected a function that takes a StreamChunk, got int 3"),
    "a segment without use": (dict(segment=4), ValueError, r"segment: expected None without stream or stop_strings"),
    "a segment": (dict(segment=0, stream=id), ValueError, r"segment: expected an int >= 1"),
    "a chunk": (dict(chunk=0), ValueError, r"chunk: expected an int >= 1"),
    "a model": (dict(model=3), TypeError, r"model: expected a language model with hidden.* got int"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    options, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call(**options)


def test_text_and_floats_are_not_prompts():
    for prompt in ("hello", 0.5, np.ones(3)):
        with pytest.raises(TypeError, match=r"prompt: expected token ids.*tokenizer\.encode"):
            decoding.generate(MODEL, prompt, max_new_tokens=1)


def test_no_rows_and_empty_rows_have_different_messages():
    for shape, expected in (((0, 1), r"at least one row, got int64\[0,1\]"), ((2, 0), "at least one token per row")):
        with pytest.raises(ValueError, match=f"prompt: expected {expected}"):
            decoding.generate(MODEL, np.zeros(shape, int), max_new_tokens=1)


@pytest.mark.slow
def test_learned_positions_end_with_their_table_and_others_may_go_on():
    with pytest.raises(ValueError, match=r"max_new_tokens: .*or lower max_new_tokens\.$"):
        call([1] * 39, LEARNED, 2)
    assert call([1] * 38, LEARNED, 2).tokens.shape == (2,)
    assert call([1] * 39, MODEL, 5, beyond_context=True).tokens.shape == (5,)


def test_text_of_traced_tokens_is_refused():
    with pytest.raises(ValueError, match=r"prompt: expected known values with stream.*num_samples="):
        jax.jit(lambda x: decoding.generate(MODEL, x, max_new_tokens=2, stream=id).tokens)(jnp.array([1, 2]))
    tokens = jax.eval_shape(lambda x: decoding.generate(MODEL, x, max_new_tokens=2).tokens, jnp.array([1, 2]))
    assert tokens.shape == (2,)


MASKS = {"dilated": masks.dilated(2), "chunked": masks.chunked(4), "none": None, "long prefix": masks.prefix(5)}


@pytest.mark.parametrize("name", MASKS)
def test_masks_that_attend_to_tokens_which_do_not_exist_yet(name):
    model = small.model("rotary", depth=1, mask=MASKS[name])
    with pytest.raises(ValueError, match="model: expected a mask that hides tokens after the 3 that are read at once"):
        decoding.generate(model, [1, 2, 3], max_new_tokens=2)


def test_a_prefix_mask_that_the_prompt_covers_is_allowed_unless_the_prompt_is_read_in_chunks():
    """The tokens are those of full passes. In chunks a prompt token could not attend to later ones of the prefix."""
    model = small.model("none", depth=1, mask=masks.causal() | masks.prefix(3))
    new = decoding.generate(model, [1, 2, 3], max_new_tokens=2).tokens
    # The prompt attends to all of itself and later tokens only to earlier ones, so one pass gives both tokens.
    full = small.jit(lambda model, x: model(x).logits)(model, np.array([1, 2, 3, *new]))
    assert new.tolist() == np.argmax(np.asarray(full)[2:4], axis=-1).tolist()
    with pytest.raises(ValueError, match="after the 0 that are read at once"):
        decoding.generate(model, [1, 2, 3], max_new_tokens=2, chunk=2)


@pytest.mark.slow
def test_the_mask_is_checked_under_jit_too():
    model = small.model("none", depth=1, mask=masks.causal() & masks.sliding_window(7))
    draw = lambda model, prompt: decoding.generate(model, prompt, max_new_tokens=2).tokens  # noqa: E731
    prompt = jnp.asarray([1, 2, 3])
    assert jax.jit(draw)(model, prompt).tolist() == draw(model, prompt).tolist()
