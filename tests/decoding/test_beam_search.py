"""Beam search against its definition in NumPy, against exhaustive search, and properties that hold for any model.

The comparison with transformers is in tests/interop/test_hf_beam_search.py.
"""

from __future__ import annotations

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jax_attention import decoding, models
from jax_attention.decoding import search
from tests.support.beam_reference import beam_search_reference, exhaustive_search, random_model, total_logprob
from tests.support.successor_model import CALL_COUNTS, LetterTokenizer, letter_ids, successor_model, transformer
from tests.support.tolerances import FORWARD

CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
V, K, LIMIT = 5, 4, 7
RAGGED = [[1, 2, 3], [4], [3, 3, 0, 1, 2]]
STOPPING = (False, True, "never")


def assert_beams_equal(beams, expected):
    """A row's beams `[K, ...]` are those of a list of (tokens, score); the remaining slots are empty."""
    beams = jax.tree.map(np.asarray, beams)
    for i, (tokens, score) in enumerate(expected):
        np.testing.assert_array_equal(beams.tokens[i], [*tokens, *[0] * (beams.tokens.shape[-1] - len(tokens))])
        assert int(beams.lengths[i]) == len(tokens)
        np.testing.assert_allclose(beams.scores[i], score, **CLOSE)
    rest = slice(len(expected), None)
    assert (beams.lengths[rest] == 0).all()
    assert (beams.scores[rest] == -np.inf).all()
    assert not beams.tokens[rest].any()
    assert not beams.stopped[rest].any()


def row_of(beams, *index):
    return jax.tree.map(lambda x: np.asarray(x)[(slice(None), *index)], beams)


PENALTIES = (0.0, 1.0, 3.0, -1.0)
QUICK = {(False, 1.0), (True, 0.0), ("never", 3.0), (False, -1.0)}
GRID = [
    pytest.param(stopping, penalty, marks=() if (stopping, penalty) in QUICK else pytest.mark.slow)
    for stopping in STOPPING
    for penalty in PENALTIES
]


@pytest.mark.parametrize(("stopping", "penalty"), GRID)
def test_a_ragged_batch_equals_the_definition_row_by_row(stopping, penalty):
    model = random_model(0, V, 3)
    options = dict(num_beams=K, max_new_tokens=LIMIT, length_penalty=penalty, early_stopping=stopping)
    for stops in ((), (2,), (0, 4)):
        for side in ("left", "right"):
            prompts = decoding.pad_prompts(RAGGED, side=side)
            beams = decoding.beam_search(model, prompts, stop_tokens=stops, num_return=K, **options)
            for i, prompt in enumerate(RAGGED):
                assert_beams_equal(
                    row_of(beams, i), beam_search_reference(model.row(i), prompt, stop_tokens=stops, **options)
                )
        single = decoding.beam_search(model.row(1), RAGGED[1], stop_tokens=stops, **options)
        np.testing.assert_array_equal(single.tokens, np.asarray(beams.tokens)[0, 1])


@settings(max_examples=100)
@example(15, -0.2, "never", 9, [2])
@example(8, -1.0, "never", 9, [1, 2, 3])
@given(
    st.integers(0, 10**6),
    st.sampled_from((-1.0, -0.3, 0.0, 0.5, 1.0, 2.5)),
    st.sampled_from(STOPPING),
    st.integers(1, 9),
    st.lists(st.integers(0, V - 1), max_size=2),
)
def test_any_model_and_options_equal_the_definition(seed, penalty, stopping, limit, stops):
    """Many models, as some options matter in few; in the two fixed ones "never" must compare at the right length."""
    model = random_model(seed, V)
    options = dict(max_new_tokens=limit, num_beams=K, length_penalty=penalty, early_stopping=stopping)
    beams = decoding.beam_search(model, [1, 2], stop_tokens=stops, num_return=K, **options)
    assert_beams_equal(beams, beam_search_reference(model, [1, 2], stop_tokens=tuple(stops), **options))


@pytest.mark.slow
def test_any_batch_shape_and_one_search_per_row():
    """The axis of the beams is in front; arrays of the model with the prompts' batch dimensions are not changed."""
    model = random_model(3, V, 2, 3)
    tokens = np.random.default_rng(0).integers(0, V, (2, 3, 4))
    options = dict(num_beams=3, max_new_tokens=5, stop_tokens=1)
    beams = decoding.beam_search(model, tokens, num_return=2, **options)
    assert beams.tokens.shape == (2, 2, 3, 5)
    assert beams.lengths.shape == beams.scores.shape == beams.stopped.shape == (2, 2, 3)
    for i, j in itertools.product(range(2), range(3)):
        expected = beam_search_reference(model.row(i, j), tokens[i, j].tolist(), **options | {"stop_tokens": (1,)})
        assert_beams_equal(row_of(beams, i, j), expected[:2])
    best = decoding.beam_search(model, tokens, **options)
    np.testing.assert_array_equal(best.tokens, beams.tokens[0])
    jitted = jax.jit(lambda model, tokens: decoding.beam_search(model, tokens, **options))(model, tokens)
    np.testing.assert_array_equal(jitted.tokens, best.tokens)
    chunked = decoding.beam_search(model, tokens, chunk=2, **options)
    np.testing.assert_array_equal(chunked.tokens, best.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.7])
def test_with_as_many_beams_as_texts_the_search_is_exhaustive(penalty):
    """27 beams for 3 tokens of a vocabulary of 3. There are 15 texts, so 12 slots stay empty."""
    model = random_model(1, 3)
    expected = exhaustive_search(model, [0, 1], 3, penalty, stop=2)
    assert len(expected) == 15
    for stopping in STOPPING:
        options = dict(num_beams=27, max_new_tokens=3, length_penalty=penalty, early_stopping=stopping)
        assert_beams_equal(decoding.beam_search(model, [0, 1], stop_tokens=2, num_return=27, **options), expected)


@given(
    st.integers(0, 10**6),
    st.floats(-2, 3),
    st.sampled_from(STOPPING),
    st.integers(1, 12),
    st.lists(st.integers(0, V - 1), max_size=2),
)
def test_scores_are_the_log_probabilities_of_the_texts(seed, penalty, stopping, limit, stops):
    """Scores in float64. Texts are sorted and distinct, and each ends at its first stop token or at the limit."""
    model, prompt = random_model(seed, V), [1, 2]
    options = dict(num_beams=K, length_penalty=penalty, early_stopping=stopping, stop_tokens=stops)
    beams = decoding.beam_search(model, prompt, max_new_tokens=limit, num_return=K, **options)
    beams = jax.tree.map(np.asarray, beams)
    texts = [tuple(row[:n].tolist()) for row, n in zip(beams.tokens, beams.lengths, strict=True)]
    scores = [total_logprob(model, prompt, text) / len(text) ** penalty for text in texts if text]
    np.testing.assert_allclose(beams.scores[: len(scores)], scores, **CLOSE)
    assert (np.diff(beams.scores[: len(scores)]) <= 0).all()
    assert len(set(texts) - {()}) == len(scores)
    for text, stopped in zip(texts, beams.stopped, strict=True):
        assert bool(stopped) == bool(text and text[-1] in stops)
        assert not set(text[:-1]) & set(stops)
        assert not text or stopped or len(text) == limit


@pytest.mark.slow
@given(st.integers(0, 10**6), st.floats(-2, 3), st.sampled_from((False, True)))
def test_one_beam_is_greedy(seed, penalty, stopping):
    """Except for "never" with a positive penalty, where a longer text may score better than one that has stopped."""
    model, options = random_model(seed, V, 3), dict(max_new_tokens=9, stop_tokens=(0, 3))
    greedy = decoding.generate(model, RAGGED, **options)
    beam = decoding.beam_search(model, RAGGED, num_beams=1, length_penalty=penalty, early_stopping=stopping, **options)
    for name in ("tokens", "lengths", "stopped"):
        np.testing.assert_array_equal(getattr(beam, name), getattr(greedy, name))
    sums = np.asarray(greedy.logprobs).sum(axis=-1)
    np.testing.assert_allclose(beam.scores, sums / np.asarray(greedy.lengths, np.float32) ** penalty, **CLOSE)


def ban(logprobs, history):
    return logprobs.at[..., 1].set(-jnp.inf)


def ban_all_but_two(logprobs, history):
    return jnp.where(jnp.arange(V) < 3, -jnp.inf, logprobs)


def ban_all_seen(logprobs, history):
    return jnp.where(history.seen, -jnp.inf, logprobs)


@pytest.mark.slow
def test_forbidden_tokens_are_never_chosen_and_make_no_nan():
    """One token forbidden; all but two, fewer than there are beams; every token that occurred, until none is left."""
    model, prompt = random_model(5, V), [1, 2]
    options = dict(num_beams=K, max_new_tokens=4)
    for transform, banned in ((ban, (1,)), (ban_all_but_two, (0, 1, 2))):
        beams = decoding.beam_search(model, prompt, num_return=K, transforms=transform, **options)
        assert_beams_equal(beams, beam_search_reference(model, prompt, banned=banned, **options))
    few = decoding.beam_search(model, prompt, num_beams=K, max_new_tokens=1, num_return=K, transforms=ban_all_but_two)
    assert_beams_equal(few, beam_search_reference(model, prompt, num_beams=K, max_new_tokens=1, banned=(0, 1, 2)))
    none = decoding.beam_search(model, prompt, num_return=K, transforms=ban_all_seen, **options)
    assert_beams_equal(none, [])
    some = decoding.beam_search(model, prompt, num_beams=K, max_new_tokens=3, num_return=K, transforms=ban_all_seen)
    assert {frozenset(row) for row in np.asarray(some.tokens).tolist()} == {frozenset((0, 3, 4))}


@pytest.mark.slow
def test_a_vocabulary_smaller_than_the_number_of_beams():
    """The first token has only 2 candidates for 9 beams, one of them a stop token."""
    model, options = random_model(7, 2), dict(num_beams=9, max_new_tokens=4)
    for stops in ((), (1,), (0, 1)):
        beams = decoding.beam_search(model, [0], stop_tokens=stops, num_return=9, **options)
        assert_beams_equal(beams, beam_search_reference(model, [0], stop_tokens=stops, **options))


def test_nan_parameters_show_and_do_not_hang():
    model = jax.tree.map(lambda x: np.full_like(x, np.nan), random_model(0, V))
    beams = decoding.beam_search(model, [1], num_beams=K, max_new_tokens=3, stop_tokens=2)
    assert np.isnan(np.asarray(beams.scores)).all()


def test_a_beam_keeps_the_cache_of_its_parent():
    """Scores equal those of full passes without a cache, with a window; a scanned model is unrolled first."""
    model = transformer("learned", scan=True, windows=(3,), depth=2)
    forward = jax.jit(lambda tokens: jax.nn.log_softmax(model(tokens).logits))
    prompts = [[5, 6, 7], [8]]
    beams = decoding.beam_search(model, prompts, num_beams=3, max_new_tokens=6, num_return=3, length_penalty=0.5)
    for i, prompt in enumerate(prompts):
        # Padded to one length, so that one program reads them all: no token attends to the zeros after it.
        whole = np.array([[*prompt, *row, 0, 0][:9] for row in np.asarray(beams.tokens)[:, i].tolist()])
        logprobs, first = np.asarray(forward(whole)), len(prompt) - 1
        chosen = np.take_along_axis(logprobs[:, :-1], whole[:, 1:, None], axis=-1)
        sums = chosen[:, first : first + 6].sum(axis=(1, 2))
        np.testing.assert_allclose(np.asarray(beams.scores)[:, i], sums / 6**0.5, **CLOSE)
    sizes = search.start._cache_size(), search.search._cache_size()
    unrolled = decoding.beam_search(
        models.unroll_layers(model), prompts, num_beams=3, max_new_tokens=6, length_penalty=0.5
    )
    np.testing.assert_array_equal(unrolled.tokens, np.asarray(beams.tokens)[0])
    assert (search.start._cache_size(), search.search._cache_size()) == sizes


def test_other_numbers_run_the_same_programs():
    """Parameters, penalty, early stopping, limit, stop tokens, number of returned beams, length of the prompt."""
    call = lambda seed, prompt, count, **more: decoding.beam_search(  # noqa: E731
        random_model(seed, V), prompt, num_beams=K, max_new_tokens=count, **more
    )
    call(0, [1], 5)
    sizes = search.start._cache_size(), search.search._cache_size()
    for stopping in STOPPING:
        call(1, [1, 2], 9, length_penalty=2.0, early_stopping=stopping, stop_tokens=(1, 2, 3), num_return=2)
    assert (search.start._cache_size(), search.search._cache_size()) == sizes


@pytest.mark.slow
def test_reordering_copies_less_than_half_of_the_caches():
    """The cache is reordered layer by layer and then written in place: the search needs K caches, not 2 K."""
    model, beams, options = transformer(context=2048, depth=4), 3, dict(capacity=2048)
    sampler = decoding.sampler(decoding.greedy())
    criteria = search.StoppingCriteria(
        np.full(4, -1, np.int32), np.int32(9), np.float32(1), np.int32(0), np.bool_(False)
    )
    row = jnp.zeros((1, 16), jnp.int32)
    prompts = decoding.Prompts(row, row, jnp.ones(1, jnp.int32))
    state = jax.eval_shape(
        lambda: search.start(model, prompts, sampler, criteria, beams=beams, room=16, chunk=None, **options)
    )
    memory = search.search.lower(model, state, sampler, criteria, **options).compile().memory_analysis()
    cache = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.cache))
    assert memory.alias_size_in_bytes >= cache
    assert memory.temp_size_in_bytes < cache / 2


def test_the_search_ends_when_all_rows_are_done_and_text_is_decoded():
    """The model writes the alphabet: the second beam of a row takes 9 letters to reach a stop token."""
    CALL_COUNTS.clear()
    out = decoding.beam_search(
        successor_model(),
        [letter_ids("a"), letter_ids("d")],
        num_beams=2,
        max_new_tokens=50,
        early_stopping=True,
        stop_tokens=letter_ids("fz"),
        tokenizer=LetterTokenizer(),
        num_return=1,
    )
    jax.effects_barrier()
    assert CALL_COUNTS["run"] == 9
    assert out.text == [["bcde", "e"]]
    np.testing.assert_array_equal(out.lengths, [[5, 2]])
    assert np.all(np.asarray(out.stopped))


WRONG = {
    "no beams": (dict(num_beams=0), ValueError, "num_beams: expected an int >= 1"),
    "half a beam": (dict(num_beams=1.5), TypeError, "num_beams: expected a Python int"),
    "more than num_beams": (dict(num_return=4), ValueError, "num_return: expected at most num_beams = 3, got 4"),
    "none returned": (dict(num_return=0), ValueError, "num_return: expected an int >= 1"),
    "early_stopping": (
        dict(early_stopping="soon"),
        ValueError,
        """early_stopping: expected False, True or "never", got 'soon'""",
    ),
    "a penalty of text": (dict(length_penalty="1"), TypeError, "length_penalty: expected a real number, got str '1'"),
    "an infinite penalty": (dict(length_penalty=float("inf")), ValueError, "length_penalty: expected a finite number"),
    "a temperature": (
        dict(transforms=decoding.temperature(0.5)),
        ValueError,
        "transforms: expected logit transforms that change log-probabilities, as beam search draws nothing",
    ),
    "an unknown token": (dict(prompt=[9]), ValueError, "prompt: expected token ids from 0 to 4"),
    "too long": (dict(max_new_tokens=63), ValueError, "max_new_tokens: expected prompt and new tokens within"),
    "no decode": (dict(tokenizer=3), TypeError, "tokenizer: expected an object with decode(ids) -> str"),
    "an unknown stop token": (dict(stop_tokens=5), ValueError, "stop_tokens: expected token ids below 5"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    options, error, message = WRONG[name]
    call = dict(prompt=[1, 2], num_beams=3, max_new_tokens=2) | options
    with pytest.raises(error, match=re.escape(message)):
        decoding.beam_search(random_model(0, V), call.pop("prompt"), **call)
