"""Beam search gives the tokens and scores of `transformers.generate(num_beams=)`, for every way to stop and to score.

So do greedy decoding and beam search with a minimal number of new tokens, or without repeated n-grams.

Heads are scaled so that log-probabilities differ by far more than rounding in float32: the sides may break a tie apart.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from jax_attention import decoding, interop
from jax_attention.cache import EMPTY
from tests.support import hf_models
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD

NEW, SHARPER = 9, 3.0
ROWS = [[5, 6, 7, 8, 9], [11], [20, 3, 21]]
MODELS = ("gpt2, untied, exact GELU", "llama 2")
PENALTIES, STOPPING = (0.0, 0.6, 1.0, 2.0, -0.5), (False, True, "never")
STOPS = ((), (9, 14, 30))


@pytest.fixture(scope="module", params=[MODELS[0], *slow(*MODELS[1:])])
def pair(request, tmp_path_factory):
    hf_model = hf_models.build(request.param)
    with torch.no_grad():
        hf_model.lm_head.weight.mul_(SHARPER)
    hf_model.generation_config.eos_token_id = None
    folder = tmp_path_factory.mktemp("beams")
    hf_model.save_pretrained(folder)
    return hf_model, interop.load(folder)


def hf_beams(model, rows, stops, **options):
    """New tokens `[K, rows, NEW]` of transformers with 0 after the end, lengths and scores `[K, rows]`."""
    padded, mask = pad_left(rows)
    # The tokens of a decoder follow its start token alone.
    before = 1 if model.config.is_encoder_decoder else padded.shape[1]
    beams = options["num_beams"]
    options |= {"num_return_sequences": beams, "return_dict_in_generate": True, "output_scores": True}
    options |= {"eos_token_id": list(stops)} if stops else {}
    out = model.generate(padded, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0, **options)
    new = out.sequences[:, before:].numpy()
    new = np.pad(new, ((0, 0), (0, NEW - new.shape[1])))
    # transformers fills up with a stop token after the end, so the first one is the end.
    ends = np.isin(new, stops)
    lengths = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, NEW)
    tokens = np.where(np.arange(NEW) < lengths[:, None], new, 0)
    arrays = tokens, lengths, out.sequences_scores.numpy()
    return [np.moveaxis(x.reshape(len(rows), beams, *x.shape[1:]), 1, 0) for x in arrays]


def pad_left(rows):
    """Token ids with padding on the left, and the attention mask."""
    longest = max(map(len, rows))
    fill = [[0] * (longest - len(row)) for row in rows]
    padded = [[*zeros, *row] for zeros, row in zip(fill, rows, strict=True)]
    mask = [[*zeros, *[1] * len(row)] for zeros, row in zip(fill, rows, strict=True)]
    return torch.tensor(padded), torch.tensor(mask)


@pytest.mark.parametrize("beams", slow(2, 3, 5))
def test_every_beam_equals_transformers_in_every_mode(pair, beams):
    """30 calls, each of three ragged rows, for each model and number of beams: 180 calls, 1800 sequences."""
    hf_model, jax_model = pair
    ends = {}
    for penalty, stopping, stops in itertools.product(PENALTIES, STOPPING, STOPS):
        options = {"num_beams": beams, "length_penalty": penalty, "early_stopping": stopping}
        tokens, lengths, scores = hf_beams(hf_model, ROWS, stops, **options)
        actual = decoding.beam_search(
            jax_model, ROWS, max_new_tokens=NEW, stop_tokens=stops, num_return=beams, **options
        )
        np.testing.assert_array_equal(actual.tokens, tokens, err_msg=str((options, stops)))
        np.testing.assert_array_equal(actual.lengths, lengths)
        np.testing.assert_allclose(actual.scores, scores, rtol=FORWARD["float32"], atol=FORWARD["float32"])
        ends[penalty, stopping, stops] = tuple(map(tuple, lengths))
    # The cases differ: beams have many lengths, and each option changes the result.
    assert {NEW} < set(np.ravel(list(ends.values())))
    for choice in range(2):
        kept = [{v for k, v in ends.items() if k[choice] == one} for one in (PENALTIES, STOPPING)[choice]]
        assert any(a != b for a, b in itertools.pairwise(kept))


@pytest.mark.slow
def test_penalties_change_the_log_probabilities_too(pair):
    """One row, as transformers counts padding as repeated tokens; the penalised log-probability enters the score."""
    hf_model, jax_model = pair
    options = {"num_beams": 3, "length_penalty": 0.8}
    expected = hf_beams(hf_model, ROWS[:1], (9,), repetition_penalty=1.6, **options)
    penalty = decoding.repetition_penalty(1.6)
    actual = decoding.beam_search(
        jax_model, ROWS[:1], max_new_tokens=NEW, stop_tokens=9, num_return=3, transforms=penalty, **options
    )
    for x, y in zip((actual.tokens, actual.lengths), expected, strict=False):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_allclose(actual.scores, expected[2], rtol=FORWARD["float32"])
    plain = decoding.beam_search(jax_model, ROWS[:1], max_new_tokens=NEW, stop_tokens=9, num_return=3, **options)
    assert not np.array_equal(plain.tokens, actual.tokens)


RULES = [(2, None), (None, 6), (3, 4), (1, None)]
"""Sizes of n-grams that may not repeat, and minimal numbers of new tokens, of the next two tests."""


def both_sides(ngram_size, minimum):
    """The options of transformers and the logit transforms for the same rules."""
    hf_options, transforms = {}, []
    if ngram_size is not None:
        hf_options["no_repeat_ngram_size"] = ngram_size
        transforms.append(decoding.no_repeat_ngram_size(ngram_size))
    if minimum is not None:
        hf_options["min_new_tokens"] = minimum
        transforms.append(decoding.min_new_tokens(minimum))
    return hf_options, transforms


@pytest.mark.parametrize(("ngram_size", "minimum"), RULES)
def test_greedy_tokens_under_a_minimum_and_without_repeated_ngrams(pair, ngram_size, minimum):
    """transformers#20814, #22696. A ragged batch here, row by row there, where padding counts among the n-grams."""
    hf_model, jax_model = pair
    rows, count = [[*ROWS[0], *ROWS[0][:3]], *ROWS[1:]], 24
    free = np.asarray(decoding.generate(jax_model, rows, max_new_tokens=count).tokens)
    stops = tuple({int(row[2]) for row in free}) if minimum else ()
    hf_options, transforms = both_sides(ngram_size, minimum)
    sampler = decoding.sampler(decoding.greedy(), *transforms)
    actual = decoding.generate(jax_model, rows, max_new_tokens=count, stop_tokens=stops, sampler=sampler)
    hf_options |= {"eos_token_id": list(stops)} if stops else {}
    for i, row in enumerate(rows):
        out = hf_model.generate(
            torch.tensor([row]), max_new_tokens=count, do_sample=False, pad_token_id=0, **hf_options
        )
        new = out[0, len(row) :].numpy()
        assert int(actual.lengths[i]) == len(new)
        np.testing.assert_array_equal(np.asarray(actual.tokens)[i, : len(new)], new)
    assert not np.array_equal(np.asarray(actual.tokens), free)
    if minimum:
        plain = decoding.generate(jax_model, rows, max_new_tokens=count, stop_tokens=stops)
        assert int(plain.lengths.min()) < minimum <= int(actual.lengths.min()) < count


@pytest.mark.slow
@pytest.mark.parametrize(("ngram_size", "minimum"), RULES)
def test_beams_under_a_minimum_and_without_repeated_ngrams(pair, ngram_size, minimum):
    hf_model, jax_model = pair
    hf_options, transforms = both_sides(ngram_size, minimum)
    options = {"num_beams": 3, "length_penalty": 0.8}
    call = dict(max_new_tokens=NEW, num_return=3, **options)
    free = decoding.beam_search(jax_model, ROWS, **call)
    stops = tuple({int(x) for x in np.ravel(np.asarray(free.tokens)[0, :, 1:3])}) if minimum else ()
    actual = decoding.beam_search(jax_model, ROWS, stop_tokens=stops, transforms=transforms, **call)
    for i, row in enumerate(ROWS):
        tokens, lengths, scores = hf_beams(hf_model, [row], stops, **options, **hf_options)
        np.testing.assert_array_equal(np.asarray(actual.tokens)[:, i], tokens[:, 0])
        np.testing.assert_array_equal(np.asarray(actual.lengths)[:, i], lengths[:, 0])
        close = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
        np.testing.assert_allclose(np.asarray(actual.scores)[:, i], scores[:, 0], **close)
    assert not np.array_equal(actual.tokens, free.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", *slow("bart", "marian")])
def test_encoder_decoders_too(name, tmp_path):
    """12 calls, each of three ragged sources, for each family: 36 calls, 324 sequences."""
    hf_model = hf_models.build(name)
    with torch.no_grad():
        # A tied head is also the embedding, so the last norm sharpens the hidden states instead.
        last = hf_model.decoder.final_layer_norm if name == "t5" else hf_model.model.decoder.layers[-1].final_layer_norm
        last.weight.mul_(SHARPER)
    hf_model.generation_config.eos_token_id = None
    hf_model.save_pretrained(tmp_path)
    jax_model, (padded, mask) = interop.load(tmp_path), pad_left(ROWS)
    # Positions of transformers count the padding.
    positions = np.where(mask.numpy(), np.arange(padded.shape[1]), EMPTY)
    decoder = jax_model.condition(padded.numpy(), positions=positions)
    start, ends = [[hf_model.config.decoder_start_token_id]] * len(ROWS), set()
    # Stop tokens that do occur, so that some beams end early.
    free = decoding.beam_search(decoder, start, max_new_tokens=NEW, num_beams=3, num_return=3)
    stop_tokens = tuple({int(x) for x in np.ravel(free.tokens[..., 3])})
    for penalty, stopping, stops in itertools.product((0.0, 2.0), STOPPING, ((), stop_tokens)):
        options = {"num_beams": 3, "length_penalty": penalty, "early_stopping": stopping}
        # The cache of transformers' T5 has one entry per layer of the encoder, too few for a deeper decoder.
        tokens, lengths, scores = hf_beams(hf_model, ROWS, stops, use_cache=name != "t5", **options)
        actual = decoding.beam_search(decoder, start, max_new_tokens=NEW, stop_tokens=stops, num_return=3, **options)
        np.testing.assert_array_equal(actual.tokens, tokens, err_msg=str((options, stops)))
        np.testing.assert_array_equal(actual.lengths, lengths)
        np.testing.assert_allclose(actual.scores, scores, rtol=FORWARD["float32"], atol=FORWARD["float32"])
        ends |= set(np.ravel(lengths))
    assert {NEW} < ends
