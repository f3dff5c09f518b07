"""Adapters of models with scanned blocks, stacked like their kernels, from and to PEFT."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch

from jax_attention import interop, nn
from tests.support import hf_models, hf_parity
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import FORWARD

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]
"""The same as in test_peft_adapters.py."""
FIVE = {"num_hidden_layers": 5, "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"]}
"""Two periods of a pattern of two layers, and one layer that is not scanned."""
TOKENS = hf_models.tokens()


def logits_of(model):
    """Call the compiled function that `hf_parity.forward` uses as well."""
    return hf_parity.logits_of_tokens(model, TOKENS)


@pytest.fixture
def pair(request, tmp_path):
    """A model of transformers, its JAX model with scanned blocks, and the folder of both."""
    kind, fields = hf_models.CASES[request.param]
    hf_model = hf_models.make_model(kind, fields | (FIVE if request.param == "gemma2" else {}))
    hf_model.save_pretrained(tmp_path / "base")
    return hf_model, interop.load(tmp_path / "base", scan=True), tmp_path


@pytest.mark.parametrize(
    ("pair", "shapes"),
    slow(pytest.param("llama 2", {(3,)}), pytest.param("gemma2", {(2,), ()})),
    indirect=["pair"],
)
def test_adapters_of_a_scanned_model_load_in_peft_and_in_both_layouts(pair, shapes):
    """All layers in one stack; or a stack for each place of a pattern, and a layer alone."""
    hf_model, scanned, folder = pair
    family = hf_model.config.model_type
    rng = np.random.default_rng(0)
    adapters = nn.lora(scanned, 2, 0, targets=r"projections|down", alpha=3.0)
    adapters = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), adapters)
    assert {x.shape[:-2] for x in adapters.down.values()} == shapes
    interop.save_adapters(scanned, adapters, folder / "adapter", family=family)
    tuned = nn.apply_adapters(scanned, adapters)
    assert hf_parity.forward(hf_model, tuned) > 1e-2, "the adapters change the logits"
    for scan in (False, True):
        model = interop.load(folder / "base", scan=scan)
        again = nn.apply_adapters(model, interop.load_adapters(model, folder / "adapter"))
        assert hf_parity.relative(logits_of(again), logits_of(tuned)) <= FORWARD["float32"]
    whole = peft.PeftModel.from_pretrained(hf_model, folder / "adapter").eval()
    assert hf_parity.forward(whole, tuned) <= FORWARD["float32"]


UNEVEN = {
    "some layers": ("gemma2", {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1, 2]}),
    "other ranks": (
        "gemma2",
        {"target_modules": ["o_proj", "v_proj"], "rank_pattern": {"layers.3.self_attn.o_proj": 5}},
    ),
    "head": ("llama 2", {"target_modules": ["gate_proj", "lm_head"]}),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pair", "options"),
    slow_except(("some layers",), [pytest.param(*case, id=name) for name, case in UNEVEN.items()]),
    indirect=["pair"],
)
def test_adapters_on_some_layers_or_of_uneven_rank(pair, options):
    """Rows of a stack that PEFT has no adapter for are zero, and stay zero in training."""
    hf_model, scanned, folder = pair
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 5, "task_type": "CAUSAL_LM"} | options)
    tuned, rng = peft.get_peft_model(hf_model, config).eval(), np.random.default_rng(1)
    with torch.no_grad():
        for key, x in tuned.named_parameters():
            if "lora_" in key:
                x.copy_(torch.from_numpy(0.3 * rng.standard_normal(x.shape)))
    tuned.save_pretrained(folder / "adapter")
    assert hf_parity.forward(tuned, scanned) > 1e-2, "the adapters change the logits"
    adapters = interop.load_adapters(scanned, folder / "adapter")
    assert hf_parity.forward(tuned, nn.apply_adapters(scanned, adapters)) <= FORWARD["float32"]
    gradient = jax.jit(jax.grad(lambda a: jnp.mean(jnp.sin(nn.apply_adapters(scanned, a)(TOKENS).logits))))(adapters)
    padded = 0
    for name, down in adapters.down.items():
        empty = np.all(np.asarray(down) == 0, axis=-2) & np.all(np.asarray(adapters.up[name]) == 0, axis=-1)
        padded += empty.sum()
        assert not np.any(np.asarray(gradient.down[name]) * empty[..., None, :])
        assert not np.any(np.asarray(gradient.up[name]) * empty[..., :, None])
        assert np.any(gradient.up[name] != 0)
    assert (padded > 0) == ("lm_head" not in options["target_modules"])
