"""Beam search against its definition in NumPy, against all texts there are, and what must hold for any model.

Against transformers: tests/interop/test_hugging_face_beams.py.
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
from tests.decoding import counting, history
from tests.support.tolerances import FORWARD

CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
V, K, LIMIT = 5, 4, 7
RAGGED = [[1, 2, 3], [4], [3, 3, 0, 1, 2]]
STOPPING = (False, True, "never")


def check_equal(found, expected):
    """A row's beams `[K, ...]` are those of a list of (tokens, score); places that are left over are empty."""
    found = jax.tree.map(np.asarray, found)
    for i, (tokens, score) in enumerate(expected):
        np.testing.assert_array_equal(found.tokens[i], [*tokens, *[0] * (found.tokens.shape[-1] - len(tokens))])
        assert int(found.lengths[i]) == len(tokens)
        np.testing.assert_allclose(found.scores[i], score, **CLOSE)
    rest = slice(len(expected), None)
    assert (found.lengths[rest] == 0).all()
    assert (found.scores[rest] == -np.inf).all()
    assert not found.tokens[rest].any()
    assert not found.stopped[rest].any()


def row_of(found, *index):
    return jax.tree.map(lambda x: np.asarray(x)[(slice(None), *index)], found)


PENALTIES = (0.0, 1.0, 3.0, -1.0)
QUICK = {(False, 1.0), (True, 0.0), ("never", 3.0), (False, -1.0)}
GRID = [
    pytest.param(stopping, penalty, marks=() if (stopping, penalty) in QUICK else pytest.mark.slow)
    for stopping in STOPPING
    for penalty in PENALTIES
]


@pytest.mark.parametrize(("stopping", "penalty"), GRID)
def test_a_ragged_batch_equals_the_definition_row_by_row(stopping, penalty):
    model = history.random(0, V, 3)
    options = dict(num_beams=K, max_new_tokens=LIMIT, length_penalty=penalty, early_stopping=stopping)
    for stops in ((), (2,), (0, 4)):
        for side in ("left", "right"):
            prompts = decoding.pad_prompts(RAGGED, side=side)
            found = decoding.beam_search(model, prompts, stop_tokens=stops, num_return=K, **options)
            for i, prompt in enumerate(RAGGED):
                check_equal(row_of(found, i), history.beams(model.row(i), prompt, stop_tokens=stops, **options))
        alone = decoding.beam_search(model.row(1), RAGGED[1], stop_tokens=stops, **options)
        np.testing.assert_array_equal(alone.tokens, np.asarray(found.tokens)[0, 1])


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
    """Many, as some choices matter in few: in the two examples what "never" takes for the length, if that is costly."""
    model = history.random(seed, V)
    options = dict(max_new_tokens=limit, num_beams=K, length_penalty=penalty, early_stopping=stopping)
    found = decoding.beam_search(model, [1, 2], stop_tokens=stops, num_return=K, **options)
    check_equal(found, history.beams(model, [1, 2], stop_tokens=tuple(stops), **options))


@pytest.mark.slow
def test_any_leading_axes_and_a_beam_of_its_own_for_each_row():
    """The axis of the beams stands in front; arrays of the model with the prompts' axes are left as they are."""
    model = history.random(3, V, 2, 3)
    tokens = np.random.default_rng(0).integers(0, V, (2, 3, 4))
    options = dict(num_beams=3, max_new_tokens=5, stop_tokens=1)
    found = decoding.beam_search(model, tokens, num_return=2, **options)
    assert found.tokens.shape == (2, 2, 3, 5)
    assert found.lengths.shape == found.scores.shape == found.stopped.shape == (2, 2, 3)
    for i, j in itertools.product(range(2), range(3)):
        expected = history.beams(model.row(i, j), tokens[i, j].tolist(), **options | {"stop_tokens": (1,)})
        check_equal(row_of(found, i, j), expected[:2])
    best = decoding.beam_search(model, tokens, **options)
    np.testing.assert_array_equal(best.tokens, found.tokens[0])
    jitted = jax.jit(lambda model, tokens: decoding.beam_search(model, tokens, **options))(model, tokens)
    np.testing.assert_array_equal(jitted.tokens, best.tokens)
    parts = decoding.beam_search(model, tokens, chunk=2, **options)
    np.testing.assert_array_equal(parts.tokens, best.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.7])
def test_as_many_beams_as_texts_find_them_all_in_order(penalty):
    """27 beams for 3 tokens and 3 letters: exhaustive search. There are 15 texts, so 12 places stay empty."""
    model = history.random(1, 3)
    expected = history.every(model, [0, 1], 3, penalty, stop=2)
    assert len(expected) == 15
    for stopping in STOPPING:
        options = dict(num_beams=27, max_new_tokens=3, length_penalty=penalty, early_stopping=stopping)
        check_equal(decoding.beam_search(model, [0, 1], stop_tokens=2, num_return=27, **options), expected)


@given(
    st.integers(0, 10**6),
    st.floats(-2, 3),
    st.sampled_from(STOPPING),
    st.integers(1, 12),
    st.lists(st.integers(0, V - 1), max_size=2),
)
def test_scores_are_those_of_the_texts(seed, penalty, stopping, limit, stops):
    """By the model in float64. Texts are sorted, none comes twice, and each ends where it says and not before."""
    model, prompt = history.random(seed, V), [1, 2]
    options = dict(num_beams=K, length_penalty=penalty, early_stopping=stopping, stop_tokens=stops)
    found = decoding.beam_search(model, prompt, max_new_tokens=limit, num_return=K, **options)
    found = jax.tree.map(np.asarray, found)
    texts = [tuple(row[:n].tolist()) for row, n in zip(found.tokens, found.lengths, strict=True)]
    scores = [history.total(model, prompt, text) / len(text) ** penalty for text in texts if text]
    np.testing.assert_allclose(found.scores[: len(scores)], scores, **CLOSE)
    assert (np.diff(found.scores[: len(scores)]) <= 0).all()
    assert len(set(texts) - {()}) == len(scores)
    for text, stopped in zip(texts, found.stopped, strict=True):
        assert bool(stopped) == bool(text and text[-1] in stops)
        assert not set(text[:-1]) & set(stops)
        assert not text or stopped or len(text) == limit


@pytest.mark.slow
@given(st.integers(0, 10**6), st.floats(-2, 3), st.sampled_from((False, True)))
def test_one_beam_is_greedy(seed, penalty, stopping):
    """Not so "never" with a positive penalty, for which a longer text may be worth passing a stop token by."""
    model, options = history.random(seed, V, 3), dict(max_new_tokens=9, stop_tokens=(0, 3))
    greedy = decoding.generate(model, RAGGED, **options)
    beam = decoding.beam_search(model, RAGGED, num_beams=1, length_penalty=penalty, early_stopping=stopping, **options)
    for name in ("tokens", "lengths", "stopped"):
        np.testing.assert_array_equal(getattr(beam, name), getattr(greedy, name))
    sums = np.asarray(greedy.logprobs).sum(axis=-1)
    np.testing.assert_allclose(beam.scores, sums / np.asarray(greedy.lengths, np.float32) ** penalty, **CLOSE)


def ban(logprobs, seen):
    return logprobs.at[..., 1].set(-jnp.inf)


def ban_but_two(logprobs, seen):
    return jnp.where(jnp.arange(V) < 3, -jnp.inf, logprobs)


def ban_all_seen(logprobs, seen):
    return jnp.where(seen, -jnp.inf, logprobs)


@pytest.mark.slow
def test_forbidden_tokens_do_not_come_and_make_no_nan():
    """From the definition without them; two tokens left, fewer than beams; in the end none at all."""
    model, prompt = history.random(5, V), [1, 2]
    options = dict(num_beams=K, max_new_tokens=4)
    for rule, banned in ((ban, (1,)), (ban_but_two, (0, 1, 2))):
        found = decoding.beam_search(model, prompt, num_return=K, rules=rule, **options)
        check_equal(found, history.beams(model, prompt, banned=banned, **options))
    few = decoding.beam_search(model, prompt, num_beams=K, max_new_tokens=1, num_return=K, rules=ban_but_two)
    check_equal(few, history.beams(model, prompt, num_beams=K, max_new_tokens=1, banned=(0, 1, 2)))
    none = decoding.beam_search(model, prompt, num_return=K, rules=ban_all_seen, **options)
    check_equal(none, [])
    some = decoding.beam_search(model, prompt, num_beams=K, max_new_tokens=3, num_return=K, rules=ban_all_seen)
    assert {frozenset(row) for row in np.asarray(some.tokens).tolist()} == {frozenset((0, 3, 4))}


@pytest.mark.slow
def test_fewer_letters_than_beams():
    """The first token has only 2 candidates for 9 beams, one of them a stop token."""
    model, options = history.random(7, 2), dict(num_beams=9, max_new_tokens=4)
    for stops in ((), (1,), (0, 1)):
        found = decoding.beam_search(model, [0], stop_tokens=stops, num_return=9, **options)
        check_equal(found, history.beams(model, [0], stop_tokens=stops, **options))


def test_nan_parameters_show_and_do_not_hang():
    model = jax.tree.map(lambda x: np.full_like(x, np.nan), history.random(0, V))
    found = decoding.beam_search(model, [1], num_beams=K, max_new_tokens=3, stop_tokens=2)
    assert np.isnan(np.asarray(found.scores)).all()


def test_the_cache_of_a_transformer_follows_its_beams():
    """Scores equal those of full passes without a cache, with a window; a scanned model is unrolled by `search`."""
    model = counting.model("learned", scan=True, windows=(3,), depth=2)
    forward = jax.jit(lambda tokens: jax.nn.log_softmax(model(tokens).logits))
    prompts = [[5, 6, 7], [8]]
    found = decoding.beam_search(model, prompts, num_beams=3, max_new_tokens=6, num_return=3, length_penalty=0.5)
    for i, prompt in enumerate(prompts):
        # All of one length, so that one program reads them: no token sees the zeros after it.
        whole = np.array([[*prompt, *row, 0, 0][:9] for row in np.asarray(found.tokens)[:, i].tolist()])
        logprobs, first = np.asarray(forward(whole)), len(prompt) - 1
        chosen = np.take_along_axis(logprobs[:, :-1], whole[:, 1:, None], axis=-1)
        sums = chosen[:, first : first + 6].sum(axis=(1, 2))
        np.testing.assert_allclose(np.asarray(found.scores)[:, i], sums / 6**0.5, **CLOSE)
    sizes = search.start._cache_size(), search.search._cache_size()
    once = decoding.beam_search(models.unroll_layers(model), prompts, num_beams=3, max_new_tokens=6, length_penalty=0.5)
    np.testing.assert_array_equal(once.tokens, np.asarray(found.tokens)[0])
    assert (search.start._cache_size(), search.search._cache_size()) == sizes


def test_one_trace_of_each_program_whatever_the_numbers():
    """Parameters, penalty, way of stopping, limit, stop tokens, how many are returned, length of the prompt."""
    call = lambda seed, prompt, count, **more: decoding.beam_search(  # noqa: E731
        history.random(seed, V), prompt, num_beams=K, max_new_tokens=count, **more
    )
    call(0, [1], 5)
    sizes = search.start._cache_size(), search.search._cache_size()
    for stopping in STOPPING:
        call(1, [1, 2], 9, length_penalty=2.0, early_stopping=stopping, stop_tokens=(1, 2, 3), num_return=2)
    assert (search.start._cache_size(), search.search._cache_size()) == sizes


@pytest.mark.slow
def test_reordering_copies_less_than_half_of_the_caches():
    """Layer by layer, and written in place after that: K caches are the cost, not 2 K."""
    model, beams, options = counting.model(context=2048, depth=4), 3, dict(capacity=2048)
    rules = decoding.sampler(decoding.greedy())
    goal = search.StoppingCriteria(np.full(4, -1, np.int32), np.int32(9), np.float32(1), np.int32(0), np.bool_(False))
    row = jnp.zeros((1, 16), jnp.int32)
    prompts = decoding.Prompts(row, row, jnp.ones(1, jnp.int32))
    state = jax.eval_shape(
        lambda: search.start(model, prompts, rules, goal, beams=beams, room=16, chunk=None, **options)
    )
    memory = search.search.lower(model, state, rules, goal, **options).compile().memory_analysis()
    cache = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.cache))
    assert memory.alias_size_in_bytes >= cache
    assert memory.temp_size_in_bytes < cache / 2


def test_a_row_that_is_done_ends_the_search_and_text_is_made():
    """ "abc…" with certainty: the second beam of a row takes 9 letters to reach a stop token."""
    counting.COUNTS.clear()
    out = decoding.beam_search(
        counting.successor(),
        [counting.letters("a"), counting.letters("d")],
        num_beams=2,
        max_new_tokens=50,
        early_stopping=True,
        stop_tokens=counting.letters("fz"),
        tokenizer=counting.Letters(),
        num_return=1,
    )
    jax.effects_barrier()
    assert counting.COUNTS["run"] == 9
    assert out.text == [["bcde", "e"]]
    np.testing.assert_array_equal(out.lengths, [[5, 2]])
    assert np.all(np.asarray(out.stopped))


WRONG = {
    "no beams": (dict(num_beams=0), ValueError, "num_beams: expected an int >= 1"),
    "half a beam": (dict(num_beams=1.5), TypeError, "num_beams: expected a Python int"),
    "more than there are": (dict(num_return=4), ValueError, "num_return: expected at most num_beams = 3, got 4"),
    "none returned": (dict(num_return=0), ValueError, "num_return: expected an int >= 1"),
    "a way to stop": (
        dict(early_stopping="soon"),
        ValueError,
        """early_stopping: expected False, True or "never", got 'soon'""",
    ),
    "a penalty as text": (dict(length_penalty="1"), TypeError, "length_penalty: expected a real number, got str '1'"),
    "an endless penalty": (dict(length_penalty=float("inf")), ValueError, "length_penalty: expected a finite number"),
    "chance": (
        dict(rules=decoding.temperature(0.5)),
        ValueError,
        "rules: expected rules that change log-probabilities, as beam search draws nothing",
    ),
    "a foreign token": (dict(prompt=[9]), ValueError, "prompt: expected token ids from 0 to 4"),
    "too long": (dict(max_new_tokens=63), ValueError, "max_new_tokens: expected prompt and new tokens within"),
    "no decode": (dict(tokenizer=3), TypeError, "tokenizer: expected an object with decode(ids) -> str"),
    "a foreign stop token": (dict(stop_tokens=5), ValueError, "stop_tokens: expected token ids below 5"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    options, error, message = WRONG[name]
    call = dict(prompt=[1, 2], num_beams=3, max_new_tokens=2) | options
    with pytest.raises(error, match=re.escape(message)):
        decoding.beam_search(history.random(0, V), call.pop("prompt"), **call)
