"""Generation with a cache equals full passes without one, in every position scheme, with any padding and chunking."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import decoding, models
from tests.models import small
from tests.support.successor_model import CALL_COUNTS, LetterTokenizer, letter_ids, successor_model, transformer
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import FORWARD

CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
COUNT = 6
RAGGED = [[5, 6, 7, 1, 2, 3, 4], [8], [9, 3, 0, 11]]
FULL = 16


def by_full_passes(model, prompts, count):
    """Greedy tokens and their log-probabilities, each from a full pass over a row of fixed length."""
    forward = small.jit(lambda tokens: jax.nn.log_softmax(model(tokens).logits))
    tokens, logprobs = [], []
    for prompt in prompts:
        row, row_logprobs = list(prompt), []
        for _ in range(count):
            last = np.asarray(forward(jnp.array(row + [0] * (FULL - len(row)))))[len(row) - 1]
            row.append(int(last.argmax()))
            row_logprobs.append(last.max())
        tokens.append(row[len(prompt) :])
        logprobs.append(row_logprobs)
    return tokens, logprobs


@pytest.mark.parametrize("scheme", slow_except(("rotary",), small.SCHEMES))
def test_cached_decoding_equals_full_passes_in_every_scheme(scheme):
    """flash-attention#1414: results with and without the cache had never been compared. Ragged rows padded on either
    side (flax#1317, mlx-lm#1906), or read in chunks of 3, give one result.
    """
    model = transformer(scheme)
    tokens, logprobs = by_full_passes(model, RAGGED, COUNT)
    calls = (
        (decoding.pad_prompts(RAGGED, side="left"), None),
        (decoding.pad_prompts(RAGGED, side="right", pad=1), None),
        (decoding.pad_prompts(RAGGED, side="left"), 3),
    )
    for prompts, chunk in calls:
        out = decoding.generate(model, prompts, max_new_tokens=COUNT, chunk=chunk)
        np.testing.assert_array_equal(out.tokens, tokens)
        np.testing.assert_allclose(out.logprobs, logprobs, **CLOSE)
        np.testing.assert_array_equal(out.lengths, [COUNT] * 3)
        assert not np.any(np.asarray(out.stopped))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 5, 16, 100])
def test_any_chunk_gives_the_same_distribution(chunk):
    """Prompts of five lengths as one batch, read in chunks; the log-probabilities are those of reading at once."""
    model, prompts = transformer(), [small.tokens(n, seed=n).tolist() for n in (1, 4, 5, 6, 11)]
    whole = decoding.generate(model, prompts, max_new_tokens=2)
    chunked = decoding.generate(model, prompts, max_new_tokens=2, chunk=chunk)
    np.testing.assert_array_equal(chunked.tokens, whole.tokens)
    np.testing.assert_allclose(chunked.logprobs, whole.logprobs, **CLOSE)


@pytest.mark.slow
def test_rows_of_a_ragged_batch_equal_rows_alone():
    model = transformer()
    together = decoding.generate(model, RAGGED, max_new_tokens=COUNT)
    for i, prompt in enumerate(RAGGED):
        single = decoding.generate(model, prompt, max_new_tokens=COUNT)
        np.testing.assert_array_equal(together.tokens[i], single.tokens)
        np.testing.assert_allclose(together.logprobs[i], single.logprobs, **CLOSE)


@pytest.mark.slow
def test_any_batch_shape():
    """One sequence, a batch, a batch of batches; NumPy, JAX or lists."""
    model, tokens = transformer("none"), small.tokens(2, 3, 4)
    out = decoding.generate(model, tokens, max_new_tokens=COUNT)
    assert out.tokens.shape == out.logprobs.shape == (2, 3, COUNT)
    assert out.lengths.shape == out.stopped.shape == (2, 3)
    one = decoding.generate(model, tokens[1, 2].tolist(), max_new_tokens=COUNT)
    assert one.tokens.shape == (COUNT,)
    assert one.lengths.shape == ()
    np.testing.assert_array_equal(one.tokens, out.tokens[1, 2])


@pytest.mark.slow
def test_scanned_and_unrolled_models_give_the_same_tokens():
    model = transformer("none", scan=True, depth=2)
    scanned = decoding.generate(model, RAGGED, max_new_tokens=COUNT)
    unrolled = decoding.generate(models.unroll_layers(model), RAGGED, max_new_tokens=COUNT)
    np.testing.assert_array_equal(scanned.tokens, unrolled.tokens)


@pytest.mark.slow
def test_prompt_and_new_tokens_are_seen_but_padding_is_not():
    """If every seen token is forbidden, no token occurs twice; token 0, which pads, may occur once."""
    model = transformer("none")

    def ban(logits, history):
        return jnp.where(history.seen, -jnp.inf, logits)

    without_seen = decoding.sampler(decoding.greedy(), ban)
    for side in ("left", "right"):
        prompts = decoding.pad_prompts([[5, 6, 7], [8]], side=side, pad=0)
        out = decoding.generate(model, prompts, max_new_tokens=10, sampler=without_seen)
        for prompt, row in zip(([5, 6, 7], [8]), np.asarray(out.tokens), strict=True):
            assert len({*prompt, *row.tolist()}) == len(prompt) + 10
            assert 0 in row
    penalised = decoding.sampler(decoding.greedy(), decoding.repetition_penalty(1e6))
    out = decoding.generate(model, [[5, 6, 7], [8]], max_new_tokens=3, sampler=penalised)
    assert all(len(set(row.tolist())) == 3 for row in np.asarray(out.tokens))


@pytest.mark.parametrize("side", ["left", *slow("right")])
def test_functions_read_the_tokens_so_far_the_step_and_the_stop_tokens(side):
    """transformers#22696: users write rules of their own. Here for prompts of different lengths, read in chunks."""
    records = []

    def record(logits, history):
        jax.debug.callback(lambda history: records.append(jax.tree.map(np.asarray, history)), history)
        return logits

    prompts = [letter_ids("abc"), letter_ids("x")]
    out = decoding.generate(
        successor_model(),
        decoding.pad_prompts(prompts, side=side),
        max_new_tokens=4,
        sampler=decoding.sampler(decoding.greedy(), record),
        stop_tokens=letter_ids("z"),
        chunk=2,
    )
    jax.effects_barrier()
    assert [int(history.step) for history in records] == [0, 1, 2, 3]
    for step, history in enumerate(records):
        assert set(history.stop_tokens.tolist()) == {25, -1}
        for i, prompt in enumerate(prompts):
            text = [*prompt, *np.asarray(out.tokens)[i, :step].tolist()]
            assert history.tokens[i, : history.lengths[i]].tolist() == text
            assert (history.tokens[i, history.lengths[i] :] == -1).all()
            assert set(np.flatnonzero(history.seen[i])) == set(text)


def test_a_rule_of_a_user_that_counts_steps_and_tokens():
    """The first new token is "m"; no token may be a neighbour of the last one, which would be the model's choice."""

    def rule(logits, history):
        last = jnp.take_along_axis(history.tokens, history.lengths[..., None] - 1, axis=-1)
        letters = jnp.arange(logits.shape[-1])
        allowed = jnp.where(history.step == 0, letters == 12, jnp.abs(letters - last) != 1)
        return jnp.where(allowed, logits, -jnp.inf)

    sampler = decoding.sampler(decoding.greedy(), rule)
    out = decoding.generate(successor_model(), [letter_ids("ab"), [4]], max_new_tokens=3, sampler=sampler)
    assert np.asarray(out.tokens).tolist() == [[12, 0, 0]] * 2
    beams = decoding.beam_search(
        successor_model(), [letter_ids("ab"), [4]], num_beams=2, max_new_tokens=3, transforms=rule
    )
    assert np.asarray(beams.tokens)[:, 0].tolist() == [12, 12]
    steps = np.abs(np.diff(np.asarray(beams.tokens), axis=-1))
    assert (steps != 1).all()


def test_stop_tokens_end_rows_and_the_loop():
    """SkyRL#1058: no early exit. Here the model runs once per prompt, and per token of the longest row but its last."""
    prompts = [letter_ids("a"), letter_ids("d")]
    CALL_COUNTS.clear()
    out = decoding.generate(
        successor_model(),
        prompts,
        max_new_tokens=50,
        stop_tokens=letter_ids("fz"),
        tokenizer=LetterTokenizer(),
    )
    jax.effects_barrier()
    assert CALL_COUNTS["run"] == 5
    assert out.text == ["bcde", "e"]
    np.testing.assert_array_equal(out.lengths, [5, 2])
    np.testing.assert_array_equal(out.stopped, [True, True])
    np.testing.assert_array_equal(np.asarray(out.tokens)[:, :6], [[1, 2, 3, 4, 5, 0], [4, 5, 0, 0, 0, 0]])
    logprobs = np.asarray(out.logprobs)
    assert (logprobs[0, :5] < 0).all()
    assert not logprobs[1, 2:].any()


def test_a_stop_token_may_be_the_first_token_or_never_occur():
    out = decoding.generate(successor_model(), [0, 0], max_new_tokens=3, stop_tokens=1)
    assert (int(out.lengths), bool(out.stopped)) == (1, True)
    out = decoding.generate(successor_model(), [0, 0], max_new_tokens=1, stop_tokens=7)
    assert (int(out.lengths), bool(out.stopped), out.tokens.tolist()) == (1, False, [1])


def test_nan_parameters_show_and_do_not_hang():
    model = jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, np.nan, x.dtype)), transformer("none"))
    out = decoding.generate(model, [1, 2], max_new_tokens=3)
    assert np.isnan(np.asarray(out.logprobs)).all()
