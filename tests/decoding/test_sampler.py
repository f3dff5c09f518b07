"""The order of transforms is that of Hugging Face's `generate`; contradictions raise; draws follow the distribution."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from jax_attention import decoding, masks
from jax_attention.decoding import greedy, min_p, repetition_penalty, sampler, temperature, top_k, top_p
from tests.support.tiers import slow_except_every
from tests.support.tolerances import PARITY

NUMBERS = {"repetition_penalty": 1.3, "temperature": 0.6, "top_k": 12, "top_p": 0.8, "min_p": 0.08}
RNG = np.random.default_rng(1)


def apply_hf(logits, ids, **options):
    """Logits after the processors that Hugging Face's `generate` chooses and orders."""
    sizes = {"n_layer": 1, "n_head": 1, "n_embd": 4, "vocab_size": logits.shape[-1]}
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    config = GenerationConfig(do_sample=True, **{"top_k": 0} | options)
    model._prepare_special_tokens(config, kwargs_has_attention_mask=True)
    processors = model._get_logits_processor(config, input_ids_seq_length=ids.shape[-1])
    return processors(torch.tensor(ids), torch.tensor(logits)).numpy()


PAIRS = slow_except_every(4, itertools.combinations(NUMBERS, 2))


@pytest.mark.parametrize("names", [*PAIRS, tuple(NUMBERS)], ids="+".join)
def test_any_combination_equals_huggingface_in_its_order(names):
    logits = (2 * RNG.standard_normal((4, 40))).astype(np.float32)
    ids = RNG.integers(0, 40, (4, 10))
    seen = np.zeros(logits.shape, bool)
    np.put_along_axis(seen, ids, True, axis=1)
    transforms = [getattr(decoding, name)(NUMBERS[name]) for name in reversed(names)]
    expected = apply_hf(logits, ids, **{name: NUMBERS[name] for name in names})
    changed = np.asarray(jax.jit(lambda s: s.logits(logits, decoding.History(seen=seen)))(sampler(*transforms)))
    np.testing.assert_array_equal(np.isfinite(changed), np.isfinite(expected))
    np.testing.assert_allclose(changed, expected, rtol=PARITY, atol=PARITY)


def test_the_order_is_visible():
    def ban(logits, history):
        return logits.at[..., 0].set(-jnp.inf)

    composed = sampler(min_p(0.1), top_p(0.9), ban, top_k(5), temperature(0.5), repetition_penalty(1.1))
    assert repr(composed) == (
        "sampler(repetition_penalty(penalty=1.1), "
        f"{ban.__name__}, temperature(temperature=0.5), top_k(k=5), top_p(0.9), min_p(p=0.1))"
    )
    assert repr(sampler(greedy(), repetition_penalty(2))) == "sampler(repetition_penalty(penalty=2.0), greedy())"
    assert sampler(top_k(3), temperature(2)) == sampler(temperature(2), top_k(3))


def test_plain_functions_see_logits_and_tokens():
    """Functions come after the penalty and before the temperature, in the order of the arguments."""
    calls = [lambda x, history: jnp.where(history.seen, -jnp.inf, x), lambda x, history: x.at[..., 3].add(10)]
    logits, history = jnp.array([9.0, 1.0, 2.0, 0.0]), decoding.History(seen=jnp.array([True, False, False, False]))
    np.testing.assert_array_equal(sampler(*calls, temperature(2)).logits(logits, history), [-jnp.inf, 0.5, 1, 5])
    assert int(sampler(greedy(), *calls)(logits, history)) == 3


def test_greedy_takes_the_first_of_the_largest():
    logits = jnp.array([[0.0, 2.0, 2.0], [-jnp.inf, -1.0, -jnp.inf]])
    tokens = sampler(greedy())(logits)
    np.testing.assert_array_equal(tokens, [1, 1])
    assert tokens.dtype == jnp.int32


def test_draws_follow_the_distribution():
    """20,000 draws; the standard error of a frequency is below 0.004."""
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    rngs = jax.random.split(jax.random.key(0), 20_000)
    for transforms, expected in (((), [0.5, 0.3, 0.15, 0.05]), ((top_k(2),), [0.625, 0.375, 0, 0])):
        tokens = jax.jit(lambda s: s(jnp.broadcast_to(logits, (20_000, 4)), None, rngs))(sampler(*transforms))
        np.testing.assert_allclose(np.bincount(tokens, minlength=4) / 20_000, expected, atol=0.016)


def test_half_precision_logits_are_sampled_in_float32():
    assert sampler(temperature(0.7)).logits(jnp.ones(3, jnp.bfloat16)).dtype == jnp.float32


WRONG = {
    "temperature and greedy": ((greedy(), temperature(0.5)), ValueError, r"greedy\(\) without.*temperature=0\.5"),
    "top_k and greedy": ((top_k(5), greedy()), ValueError, r"transforms that it would ignore, got \[top_k\(k=5\)\]"),
    "top_p and greedy": ((top_p(0.5), greedy()), ValueError, r"top_p\(0\.5\)"),
    "min_p and greedy": ((min_p(0.5), greedy()), ValueError, r"min_p\(p=0\.5\)"),
    "twice": ((top_k(5), top_k(6)), ValueError, r"at most once, got \[top_k\(k=5\), top_k\(k=6\)\]"),
    "a factory": (
        (temperature,),
        TypeError,
        r"expected a logit transform, got the factory temperature itself\. Call it",
    ),
    "a number": ((0.7,), TypeError, r"expected logit transforms such as decoding\.temperature\(0\.8\).*got float 0\.7"),
    "a function of version 0.1": (
        (lambda logits, seen: logits,),
        TypeError,
        r"\(logits, history\) -> logits, got <lambda> with an argument named seen\. Rename it to history and read",
    ),
    "a mask": ((masks.causal(),), TypeError, r"got causal\(\)|got Causal"),
}


@pytest.mark.parametrize("name", WRONG)
def test_contradictions_and_wrong_arguments(name):
    """transformers#14236: a temperature without sampling was silently ignored."""
    transforms, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        sampler(*transforms)


def test_a_function_must_keep_the_shape():
    with pytest.raises(
        ValueError, match=r"logit transform .*: expected the function to return logits of shape \(3,\), got"
    ):
        sampler(lambda x, history: x[:2]).logits(jnp.ones(3), decoding.History())


@pytest.mark.parametrize("rng", [None, jax.random.key(0)])
def test_a_sampler_takes_a_key_for_each_row(rng):
    with pytest.raises(ValueError, match=r"rng: expected one random key for each row of logits, \(2,\), got "):
        sampler(top_k(2))(jnp.ones((2, 11)), None, rng)
