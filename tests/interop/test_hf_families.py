"""Every family, loaded from a folder that transformers wrote: logits, gradients, greedy decoding, and saved again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jax_attention import interop
from tests.support import hf_models, hf_parity
from tests.support.tiers import slow_except
from tests.support.tolerances import FORWARD, GRADIENT

CASES = hf_models.CASES | hf_models.ENCODERS | hf_models.ENCODER_DECODERS | hf_models.VARIANTS
FIRST = tuple({kind: name for name, (kind, _) in reversed(CASES.items())}.values())
"""One case for each family."""
QUICK = ("gpt2", "llama, biases, YaRN", "gemma3", "roberta", "gpt2, scores by layer", "t5, 8 buckets")
"""Learned and rotary positions, two rotary bases in one model, norms in two places, options that few models use. Other
files load the rest.
"""


@pytest.mark.parametrize("name", [*slow_except(QUICK, CASES), "marian, three layers"])
def test_logits(pair, name):
    assert hf_parity.forward(*pair(name)) <= FORWARD["float32"]


@pytest.mark.parametrize("name", slow_except(("gpt2, untied, exact GELU",), CASES))
def test_gradients_of_every_weight(pair, name):
    distances = hf_parity.gradients(*pair(name))
    assert {name: x for name, x in distances.items() if not x <= GRADIENT["float32"]} == {}


@pytest.mark.parametrize(
    "name", slow_except(("gpt2, untied, exact GELU",), [name for name in CASES if name not in hf_models.ENCODERS])
)
def test_greedy_decoding_of_a_ragged_batch_is_equal_token_for_token(pair, name):
    jax_tokens, hf_tokens = hf_parity.greedy(*pair(name))
    np.testing.assert_array_equal(jax_tokens, hf_tokens)


@pytest.mark.parametrize("name", slow_except(FIRST, CASES))
def test_a_saved_folder_gives_the_same_logits_in_transformers(pair, name, tmp_path):
    hf_model, jax_model = pair(name)
    setting = hf_parity.setting_of(hf_model)
    interop.save(jax_model, tmp_path / "same", family=hf_model.config.model_type)
    again = type(hf_model).from_pretrained(tmp_path / "same", attn_implementation="eager")
    with torch.no_grad():
        assert torch.equal(setting.run_hf(again), setting.run_hf(hf_model))


def test_every_family_has_a_case(pair):
    types = {hf_parity.family_of(pair(name)[0]).model_type for name in FIRST}
    assert types == {family.model_type for family in hf_parity.FAMILIES}
