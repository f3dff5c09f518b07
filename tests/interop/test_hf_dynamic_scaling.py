"""Generation under dynamic NTK scaling, against transformers with and without its cache (transformers#25104)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jax_attention import decoding, interop
from tests.support import hf_models
from tests.support.tiers import slow

CONTEXT = 12
SCALING = {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 4.0}
PROMPTS = [[5, 6, 7, 8, 9], [11, 3], [20, 3, 21, 9]]


@pytest.fixture(scope="module", params=[1, *slow(2)])
def pair(request, tmp_path_factory):
    """A Llama of one or two layers whose scaling begins at 12 tokens."""
    kind, fields = hf_models.CASES["llama 2"]
    changes = {"num_hidden_layers": request.param, "max_position_embeddings": CONTEXT, "rope_parameters": SCALING}
    hf_model = hf_models.make_model(kind, fields | changes)
    hf_model.generation_config.eos_token_id = None
    folder = tmp_path_factory.mktemp("dynamic")
    hf_model.save_pretrained(folder)
    return hf_model, interop.load(folder)


def hf_tokens(hf_model, prompt, count, use_cache):
    options = dict(max_new_tokens=count, do_sample=False, pad_token_id=0, use_cache=use_cache)
    return hf_model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()


@pytest.mark.parametrize("beyond", [False, True])
def test_generated_tokens(pair, beyond):
    """A ragged batch. Up to the original length all agree. Beyond it a model of one layer gives the tokens of full
    passes, which transformers makes without its cache; deeper layers keep what they saw at shorter lengths.
    """
    hf_model, jax_model = pair
    depth, count = jax_model.config.depth, 30 if beyond else CONTEXT - 5
    out = decoding.generate(jax_model, PROMPTS, max_new_tokens=count, beyond_context=beyond)
    actual = np.asarray(out.tokens).tolist()
    full_passes = [hf_tokens(hf_model, prompt, count, use_cache=False) for prompt in PROMPTS]
    within = [CONTEXT - len(prompt) for prompt in PROMPTS]
    for row, expected, same in zip(actual, full_passes, within, strict=True):
        assert row[:same] == expected[:same]
    if not beyond:
        assert actual == [hf_tokens(hf_model, prompt, count, use_cache=True) for prompt in PROMPTS]
    elif depth == 1:
        assert actual == full_passes
        assert actual != [hf_tokens(hf_model, prompt, count, use_cache=True) for prompt in PROMPTS]
    alone = [decoding.generate(jax_model, p, max_new_tokens=count, beyond_context=beyond).tokens for p in PROMPTS]
    assert actual == np.asarray(alone).tolist()


@pytest.mark.slow
def test_beams_are_those_of_the_cached_steps(pair):
    """One beam is greedy, and the beams of a row do not depend on the other rows."""
    _, jax_model = pair
    options = dict(max_new_tokens=20, beyond_context=True)
    greedy = decoding.generate(jax_model, PROMPTS, **options).tokens
    np.testing.assert_array_equal(decoding.beam_search(jax_model, PROMPTS, num_beams=1, **options).tokens, greedy)
    beams = decoding.beam_search(jax_model, PROMPTS, num_beams=3, **options).tokens
    alone = [decoding.beam_search(jax_model, prompt, num_beams=3, **options).tokens for prompt in PROMPTS]
    np.testing.assert_array_equal(beams, alone)


def test_a_long_prompt_is_not_read_in_chunks(pair):
    """The pieces would be rotated by their lengths, not by that of the prompt. Up to the original length they agree."""
    _, jax_model = pair
    options = dict(max_new_tokens=2, beyond_context=True)
    whole, pieces = (decoding.generate(jax_model, PROMPTS, chunk=chunk, **options).tokens for chunk in (None, 2))
    np.testing.assert_array_equal(whole, pieces)
    with pytest.raises(ValueError, match=r"chunk: expected None for a prompt of 13 tokens.*DynamicScaling.*Read it at"):
        decoding.generate(jax_model, [1] * 13, chunk=4, **options)
