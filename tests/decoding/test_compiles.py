"""Generation is two compiled programs, and new parameters, numbers, limits and nearby lengths run the same two."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import decoding
from jax_attention.decoding import loop
from tests.support.successor_model import CALL_COUNTS, LetterTokenizer, successor_model, transformer


def test_at_most_two_compilations_for_200_tokens(caplog):
    """Counted from the log of JAX; a second call compiles nothing."""
    model, prompt = successor_model(3), np.array([1, 2, 3])
    loop.prefill.clear_cache()
    loop.decode.clear_cache()
    counts = []
    for _ in range(2):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            out = decoding.generate(model, prompt, max_new_tokens=200)
        compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
        counts.append([m for m in compiled if "prefill" in m or "decode" in m])
    assert out.tokens.shape == (200,)
    assert (len(counts[0]), len(counts[1])) == (2, 0)


def test_other_numbers_run_the_same_programs():
    """Parameters, temperature, k, p, n, minimum, rng, limit, prompt length, stop tokens and strings, streaming."""
    make = lambda t, k, p: decoding.sampler(  # noqa: E731
        decoding.temperature(t),
        decoding.top_k(k),
        decoding.top_p(p),
        decoding.no_repeat_ngram_size(k),
        decoding.min_new_tokens(k),
    )
    call = lambda stride, length, count, sampler, **more: decoding.generate(  # noqa: E731
        successor_model(stride), [5] * length, max_new_tokens=count, sampler=sampler, **{"stop_tokens": 25} | more
    )
    call(1, 3, 12, make(0.5, 3, 0.5), rng=jax.random.key(0))
    CALL_COUNTS.clear()
    call(2, 3, 12, make(0.7, 5, 0.9), rng=jax.random.key(1))
    call(1, 9, 12, make(0.5, 3, 0.5), rng=jax.random.key(0))
    call(1, 16, 16, make(0.5, 3, 0.5), rng=jax.random.key(0), stop_tokens=(1, 2, 3))
    call(1, 1, 2, make(2.0, 1, 0.1), rng=jax.random.key(0), stream=lambda chunk: None, segment=1)
    call(1, 1, 12, make(1, 1, 1), rng=jax.random.key(0), stop_strings="gh", tokenizer=LetterTokenizer())
    assert (CALL_COUNTS["prefill"], CALL_COUNTS["decode"]) == (0, 0)
    call(1, 17, 12, make(0.5, 3, 0.5), rng=jax.random.key(0))
    assert CALL_COUNTS["prefill"] > 0


@pytest.mark.slow
def test_new_parameters_of_a_transformer_do_not_recompile():
    first, second = transformer(seed=0), transformer(seed=1)
    one = decoding.generate(first, [1, 2, 3], max_new_tokens=5)
    sizes = loop.prefill._cache_size(), loop.decode._cache_size()
    other = decoding.generate(second, [1, 2, 3], max_new_tokens=5)
    assert (loop.prefill._cache_size(), loop.decode._cache_size()) == sizes
    assert (np.asarray(one.logprobs) != np.asarray(other.logprobs)).any()


def compiled_decode(capacity):
    """The loop for one row and a cache of `capacity` slots, compiled but not run."""
    model = transformer("none", context=capacity, depth=2)
    sampler, stop = decoding.sampler(decoding.greedy()), jnp.full(4, -1, jnp.int32)
    row = jnp.zeros((1, 16), jnp.int32)
    prompts = decoding.Prompts(row, row, jnp.ones(1, jnp.int32))
    options = dict(capacity=capacity, room=16, chunk=None, samples=None)
    state = jax.eval_shape(lambda: loop.prefill(model, prompts, sampler, None, stop, **options))
    return loop.decode.lower(model, state, sampler, np.int32(9)).compile(), state


def test_the_loop_writes_into_the_cache_in_place():
    """flax#4505, llama-2-jax#15: a cache copied for every token. Here the donated state is the result, and temporary
    memory is less than one layer's keys and values.
    """
    compiled, state = compiled_decode(2048)
    size = lambda x: x.size * x.dtype.itemsize  # noqa: E731
    cache = sum(map(size, jax.tree.leaves(state.cache)))
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= cache
    assert memory.temp_size_in_bytes < cache / 2


def test_only_the_last_token_of_a_prompt_goes_through_the_head():
    model = transformer()
    rows = []
    hooked = SimpleNamespace()
    for name in ("hidden", "init_cache", "config"):
        setattr(hooked, name, getattr(model, name))
    hooked.unembed = lambda x: (rows.append(x.shape), model.unembed(x))[1]
    prompts = decoding.pad_prompts([[1, 2, 3], [4]])
    jax.eval_shape(
        lambda: loop.prefill.__wrapped__(
            hooked,
            prompts,
            decoding.sampler(decoding.greedy()),
            None,
            jnp.zeros(4, jnp.int32),
            capacity=16,
            room=16,
            chunk=None,
            samples=None,
        )
    )
    assert rows == [(2, 16)]
