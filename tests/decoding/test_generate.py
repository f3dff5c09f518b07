"""Generation with a cache gives what full passes without one give: every position scheme, any padding, any chunking."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import decoding, models
from tests.decoding import counting
from tests.models import small
from tests.support.tiers import slow_except
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
        row, found = list(prompt), []
        for _ in range(count):
            last = np.asarray(forward(jnp.array(row + [0] * (FULL - len(row)))))[len(row) - 1]
            row.append(int(last.argmax()))
            found.append(last.max())
        tokens.append(row[len(prompt) :])
        logprobs.append(found)
    return tokens, logprobs


@pytest.mark.parametrize("scheme", slow_except(("rotary",), small.SCHEMES))
def test_cached_decoding_equals_full_passes_in_every_scheme(scheme):
    """flash-attention#1414: nobody compared with and without the cache. Ragged rows, both sides, chunks of 3: one
    result; flax#1317, mlx-lm#1906.
    """
    model = counting.model(scheme)
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
    """Of the first new token after every prompt length, through the log-probabilities; alone and as a batch."""
    model, prompts = counting.model(), [small.tokens(n, seed=n).tolist() for n in (1, 4, 5, 6, 11)]
    whole = decoding.generate(model, prompts, max_new_tokens=2)
    parts = decoding.generate(model, prompts, max_new_tokens=2, chunk=chunk)
    np.testing.assert_array_equal(parts.tokens, whole.tokens)
    np.testing.assert_allclose(parts.logprobs, whole.logprobs, **CLOSE)


@pytest.mark.slow
def test_rows_of_a_ragged_batch_equal_rows_alone():
    model = counting.model()
    together = decoding.generate(model, RAGGED, max_new_tokens=COUNT)
    for i, prompt in enumerate(RAGGED):
        alone = decoding.generate(model, prompt, max_new_tokens=COUNT)
        np.testing.assert_array_equal(together.tokens[i], alone.tokens)
        np.testing.assert_allclose(together.logprobs[i], alone.logprobs, **CLOSE)


@pytest.mark.slow
def test_any_leading_axes():
    """One sequence, a batch, a batch of batches; NumPy, JAX or lists."""
    model, tokens = counting.model("none"), small.tokens(2, 3, 4)
    out = decoding.generate(model, tokens, max_new_tokens=COUNT)
    assert out.tokens.shape == out.logprobs.shape == (2, 3, COUNT)
    assert out.lengths.shape == out.stopped.shape == (2, 3)
    one = decoding.generate(model, tokens[1, 2].tolist(), max_new_tokens=COUNT)
    assert one.tokens.shape == (COUNT,)
    assert one.lengths.shape == ()
    np.testing.assert_array_equal(one.tokens, out.tokens[1, 2])


@pytest.mark.slow
def test_scanned_and_unrolled_models_give_the_same_tokens():
    model = counting.model("none", scan=True, depth=2)
    ours = decoding.generate(model, RAGGED, max_new_tokens=COUNT)
    unrolled = decoding.generate(models.unroll_layers(model), RAGGED, max_new_tokens=COUNT)
    np.testing.assert_array_equal(ours.tokens, unrolled.tokens)


@pytest.mark.slow
def test_repetition_penalty_counts_prompt_and_new_tokens_but_no_padding():
    """With a ban on all that was seen, no token comes twice; token 0, which pads, may come once. By full passes."""
    model = counting.model("none")

    def ban(logits, seen):
        return jnp.where(seen, -jnp.inf, logits)

    chosen = decoding.sampler(decoding.greedy(), ban)
    for side in ("left", "right"):
        prompts = decoding.pad_prompts([[5, 6, 7], [8]], side=side, pad=0)
        out = decoding.generate(model, prompts, max_new_tokens=10, sampler=chosen)
        for prompt, row in zip(([5, 6, 7], [8]), np.asarray(out.tokens), strict=True):
            assert len({*prompt, *row.tolist()}) == len(prompt) + 10
            assert 0 in row
    penalised = decoding.sampler(decoding.greedy(), decoding.repetition_penalty(1e6))
    near = decoding.generate(model, [[5, 6, 7], [8]], max_new_tokens=3, sampler=penalised)
    assert all(len(set(row.tolist())) == 3 for row in np.asarray(near.tokens))


def test_stop_tokens_end_rows_and_the_loop():
    """SkyRL#1058: no early exit. The model runs once for the prompt and once per token but the last of the longest."""
    prompts = [counting.letters("a"), counting.letters("d")]
    counting.COUNTS.clear()
    out = decoding.generate(
        counting.successor(),
        prompts,
        max_new_tokens=50,
        stop_tokens=counting.letters("fz"),
        tokenizer=counting.Letters(),
    )
    jax.effects_barrier()
    assert counting.COUNTS["run"] == 5
    assert out.text == ["bcde", "e"]
    np.testing.assert_array_equal(out.lengths, [5, 2])
    np.testing.assert_array_equal(out.stopped, [True, True])
    np.testing.assert_array_equal(np.asarray(out.tokens)[:, :6], [[1, 2, 3, 4, 5, 0], [4, 5, 0, 0, 0, 0]])
    logprobs = np.asarray(out.logprobs)
    assert (logprobs[0, :5] < 0).all()
    assert not logprobs[1, 2:].any()


def test_a_stop_token_may_come_first_or_never():
    out = decoding.generate(counting.successor(), [0, 0], max_new_tokens=3, stop_tokens=1)
    assert (int(out.lengths), bool(out.stopped)) == (1, True)
    out = decoding.generate(counting.successor(), [0, 0], max_new_tokens=1, stop_tokens=7)
    assert (int(out.lengths), bool(out.stopped), out.tokens.tolist()) == (1, False, [1])


def test_nan_parameters_show_and_do_not_hang():
    model = jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, np.nan, x.dtype)), counting.model("none"))
    out = decoding.generate(model, [1, 2], max_new_tokens=3)
    assert np.isnan(np.asarray(out.logprobs)).all()
