"""Whose randomness: a row's tokens depend on (rng, its number, its own text), and on nothing else."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jax_attention import decoding
from tests.decoding import counting
from tests.support.tolerances import FORWARD

WARM = decoding.sampler(decoding.temperature(4.0))
PROMPTS = [[5, 6, 7, 1], [5, 6, 7, 1], [9]]
RNG = jax.random.key(7)
CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}


def draw(prompt, rng=RNG, **options):
    return decoding.generate(counting.successor(), prompt, max_new_tokens=12, sampler=WARM, rng=rng, **options)


def test_the_same_rng_gives_the_same_tokens_and_another_gives_others():
    first, again, other = draw(PROMPTS), draw(PROMPTS), draw(PROMPTS, jax.random.key(8))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert (np.asarray(first.tokens) != np.asarray(other.tokens)).any(axis=1).all()
    legacy = draw(PROMPTS, jax.random.PRNGKey(7))
    np.testing.assert_array_equal(first.tokens, legacy.tokens)


def test_equal_prompts_in_a_batch_draw_differently():
    tokens = np.asarray(draw(PROMPTS).tokens)
    assert (tokens[0] != tokens[1]).any()


@pytest.mark.slow
def test_a_row_depends_neither_on_other_rows_nor_on_padding():
    """A shorter batch, other neighbours, the other side: the same tokens in the rows that stay."""
    tokens = np.asarray(draw(PROMPTS).tokens)
    np.testing.assert_array_equal(draw(PROMPTS[:2]).tokens, tokens[:2])
    np.testing.assert_array_equal(draw([*PROMPTS[:2], [1, 2, 3, 4, 5, 6, 7, 8, 9]]).tokens[:2], tokens[:2])
    np.testing.assert_array_equal(draw(decoding.pad_prompts(PROMPTS, side="right")).tokens, tokens)
    np.testing.assert_array_equal(draw(PROMPTS[0]).tokens, tokens[0])


@pytest.mark.slow
def test_samples_are_the_calls_with_folded_keys_and_vmap_agrees():
    prompts = np.array(PROMPTS[:2])
    together = draw(prompts, num_samples=3)
    assert together.tokens.shape == together.logprobs.shape == (3, 2, 12)
    rngs = jax.vmap(lambda i: jax.random.fold_in(RNG, i))(np.arange(3))
    for rng, tokens in zip(rngs, together.tokens, strict=True):
        np.testing.assert_array_equal(draw(prompts, rng).tokens, tokens)
    mapped = jax.jit(jax.vmap(lambda rng: draw(prompts, rng).tokens))(rngs)
    np.testing.assert_array_equal(mapped, together.tokens)
    assert len(np.unique(np.asarray(together.tokens).reshape(6, 12), axis=0)) == 6
    alone = draw(PROMPTS[0], num_samples=1)
    assert alone.tokens.shape == (1, 12)
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[0, 0])


@pytest.mark.slow
def test_samples_share_one_reading_of_the_prompt_in_a_real_cache():
    """The axis of the samples goes to its place in every array of the cache."""
    options = dict(max_new_tokens=4, sampler=decoding.sampler(decoding.temperature(2.0)))
    model = counting.model()
    out = decoding.generate(model, PROMPTS, rng=RNG, num_samples=2, **options)
    for s in range(2):
        one = decoding.generate(model, PROMPTS, rng=jax.random.fold_in(RNG, s), **options)
        np.testing.assert_array_equal(out.tokens[s], one.tokens)
        np.testing.assert_allclose(out.logprobs[s], one.logprobs, **CLOSE)
