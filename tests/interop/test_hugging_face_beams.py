"""Beam search gives the tokens and scores of `transformers.generate(num_beams=)`, for every way to stop and to score.

The heads are scaled so that log-probabilities differ by far more than float32 rounds: a tie may fall on either side.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from jax_attention import decoding, interop
from jax_attention.cache import EMPTY
from tests.interop import hf_models
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD

NEW, SHARPER = 9, 3.0
ROWS = [[5, 6, 7, 8, 9], [11], [20, 3, 21]]
MODELS = ("gpt2, untied, exact GELU", "llama 2")
PENALTIES, STOPPING = (0.0, 0.6, 1.0, 2.0, -0.5), (False, True, "never")
STOPS = ((), (9, 14, 30))


@pytest.fixture(scope="module", params=[MODELS[0], *slow(*MODELS[1:])])
def pair(request, tmp_path_factory):
    theirs = hf_models.build(request.param)
    with torch.no_grad():
        theirs.lm_head.weight.mul_(SHARPER)
    theirs.generation_config.eos_token_id = None
    folder = tmp_path_factory.mktemp("beams")
    theirs.save_pretrained(folder)
    return theirs, interop.load(folder)


def theirs_of(model, rows, stops, **options):
    """Their new tokens `[K, rows, NEW]` with 0 behind the end, lengths and scores `[K, rows]`."""
    padded, seen = padded_of(rows)
    # The tokens of a decoder follow its start token alone.
    before = 1 if model.config.is_encoder_decoder else padded.shape[1]
    beams = options["num_beams"]
    options |= {"num_return_sequences": beams, "return_dict_in_generate": True, "output_scores": True}
    options |= {"eos_token_id": list(stops)} if stops else {}
    out = model.generate(padded, attention_mask=seen, max_new_tokens=NEW, do_sample=False, pad_token_id=0, **options)
    new = out.sequences[:, before:].numpy()
    new = np.pad(new, ((0, 0), (0, NEW - new.shape[1])))
    # What they write behind the end is a stop token as well, so the first one is the end.
    ends = np.isin(new, stops)
    lengths = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, NEW)
    tokens = np.where(np.arange(NEW) < lengths[:, None], new, 0)
    arrays = tokens, lengths, out.sequences_scores.numpy()
    return [np.moveaxis(x.reshape(len(rows), beams, *x.shape[1:]), 1, 0) for x in arrays]


def padded_of(rows):
    """On the left, and which tokens count."""
    longest = max(map(len, rows))
    fill = [[0] * (longest - len(row)) for row in rows]
    padded = [[*zeros, *row] for zeros, row in zip(fill, rows, strict=True)]
    seen = [[*zeros, *[1] * len(row)] for zeros, row in zip(fill, rows, strict=True)]
    return torch.tensor(padded), torch.tensor(seen)


@pytest.mark.parametrize("beams", slow(2, 3, 5))
def test_every_beam_is_theirs_in_every_mode(pair, beams):
    """30 calls, each of three ragged rows, for each model and number of beams: 180 calls, 1800 sequences."""
    theirs, ours = pair
    ends = {}
    for penalty, stopping, stops in itertools.product(PENALTIES, STOPPING, STOPS):
        options = {"num_beams": beams, "length_penalty": penalty, "early_stopping": stopping}
        tokens, lengths, scores = theirs_of(theirs, ROWS, stops, **options)
        found = decoding.beam_search(ours, ROWS, max_new_tokens=NEW, stop_tokens=stops, num_return=beams, **options)
        np.testing.assert_array_equal(found.tokens, tokens, err_msg=str((options, stops)))
        np.testing.assert_array_equal(found.lengths, lengths)
        np.testing.assert_allclose(found.scores, scores, rtol=FORWARD["float32"], atol=FORWARD["float32"])
        ends[penalty, stopping, stops] = tuple(map(tuple, lengths))
    # The cases differ: beams of many lengths, and each choice changes what is found.
    assert {NEW} < set(np.ravel(list(ends.values())))
    for choice in range(2):
        kept = [{v for k, v in ends.items() if k[choice] == one} for one in (PENALTIES, STOPPING)[choice]]
        assert any(a != b for a, b in itertools.pairwise(kept))


@pytest.mark.slow
def test_rules_change_their_log_probabilities_too(pair):
    """One row, as they count padding as repeated; the penalty stays in the score."""
    theirs, ours = pair
    options = {"num_beams": 3, "length_penalty": 0.8}
    expected = theirs_of(theirs, ROWS[:1], (9,), repetition_penalty=1.6, **options)
    rule = decoding.repetition_penalty(1.6)
    found = decoding.beam_search(ours, ROWS[:1], max_new_tokens=NEW, stop_tokens=9, num_return=3, rules=rule, **options)
    for x, y in zip((found.tokens, found.lengths), expected, strict=False):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_allclose(found.scores, expected[2], rtol=FORWARD["float32"])
    plain = decoding.beam_search(ours, ROWS[:1], max_new_tokens=NEW, stop_tokens=9, num_return=3, **options)
    assert not np.array_equal(plain.tokens, found.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", *slow("bart", "marian")])
def test_encoder_decoders_too(name, tmp_path):
    """12 calls, each of three ragged sources, for each family: 36 calls, 324 sequences."""
    theirs = hf_models.build(name)
    with torch.no_grad():
        # The tied table is that of the embeddings too: hidden states are sharpened before it, by the last norm.
        last = theirs.decoder.final_layer_norm if name == "t5" else theirs.model.decoder.layers[-1].final_layer_norm
        last.weight.mul_(SHARPER)
    theirs.generation_config.eos_token_id = None
    theirs.save_pretrained(tmp_path)
    ours, (padded, seen) = interop.load(tmp_path), padded_of(ROWS)
    # Their positions count the padding.
    places = np.where(seen.numpy(), np.arange(padded.shape[1]), EMPTY)
    given = ours.condition(padded.numpy(), positions=places)
    start, ends = [[theirs.config.decoder_start_token_id]] * len(ROWS), set()
    # Tokens that do come up, so that some beams end early.
    free = decoding.beam_search(given, start, max_new_tokens=NEW, num_beams=3, num_return=3)
    some = tuple({int(x) for x in np.ravel(free.tokens[..., 3])})
    for penalty, stopping, stops in itertools.product((0.0, 2.0), STOPPING, ((), some)):
        options = {"num_beams": 3, "length_penalty": penalty, "early_stopping": stopping}
        # Their cache of T5 has one entry for each layer of the encoder, too few for a deeper decoder.
        tokens, lengths, scores = theirs_of(theirs, ROWS, stops, use_cache=name != "t5", **options)
        found = decoding.beam_search(given, start, max_new_tokens=NEW, stop_tokens=stops, num_return=3, **options)
        np.testing.assert_array_equal(found.tokens, tokens, err_msg=str((options, stops)))
        np.testing.assert_array_equal(found.lengths, lengths)
        np.testing.assert_allclose(found.scores, scores, rtol=FORWARD["float32"], atol=FORWARD["float32"])
        ends |= set(np.ravel(lengths))
    assert {NEW} < ends
