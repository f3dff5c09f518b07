"""Every family, loaded from a folder that transformers wrote: logits, gradients, greedy decoding, and back again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jax_attention import interop
from tests.interop import hf_models, parity_of
from tests.support.tiers import slow_except
from tests.support.tolerances import FORWARD, GRADIENT

CASES = hf_models.CASES | hf_models.ENCODERS | hf_models.PAIRS
FIRST = tuple({kind: name for name, (kind, _) in reversed(CASES.items())}.values())
"""One case for each family."""
QUICK = ("gpt2", "llama, biases, YaRN", "gemma3", "roberta")
"""Learned and rotary positions, two rotary bases in one model, norms in two places; other files load the rest."""


@pytest.mark.parametrize("name", [*slow_except(QUICK, CASES), "marian, three layers"])
def test_logits(pair, name):
    assert parity_of.forward(*pair(name)) <= FORWARD["float32"]


@pytest.mark.parametrize("name", slow_except(("gpt2, untied, exact GELU",), CASES))
def test_gradients_of_every_weight(pair, name):
    found = parity_of.gradients(*pair(name))
    assert {name: x for name, x in found.items() if not x <= GRADIENT["float32"]} == {}


@pytest.mark.parametrize("name", slow_except(("gpt2, untied, exact GELU",), hf_models.CASES | hf_models.PAIRS))
def test_greedy_decoding_of_a_ragged_batch_is_equal_token_for_token(pair, name):
    found, expected = parity_of.greedy(*pair(name))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", slow_except(FIRST, CASES))
def test_a_saved_folder_gives_the_same_logits_in_transformers(pair, name, tmp_path):
    theirs, ours = pair(name)
    setting = parity_of.setting_of(theirs)
    interop.save(ours, tmp_path / "same", family=theirs.config.model_type)
    again = type(theirs).from_pretrained(tmp_path / "same", attn_implementation="eager")
    with torch.no_grad():
        assert torch.equal(setting.theirs(again), setting.theirs(theirs))


def test_every_family_has_a_case(pair):
    kinds = {parity_of.family_of(pair(name)[0]).model_type for name in FIRST}
    assert kinds == {family.model_type for family in parity_of.FAMILIES}
