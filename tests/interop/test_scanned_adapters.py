"""Adapters of a model whose blocks are scanned are those of PEFT too: stacked as its kernels are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch

from jax_attention import interop, nn
from tests.interop import hf_models, parity_of
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import FORWARD

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]
"""As in test_adapters.py."""
FIVE = {"num_hidden_layers": 5, "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"]}
"""Two rounds of a pattern of two, and one layer that stands alone."""
TOKENS = hf_models.tokens()


def logits_of(model):
    """Call the compiled function that `parity_of.forward` uses as well."""
    return parity_of.logits_of_tokens(model, TOKENS)


@pytest.fixture
def pair(request, tmp_path):
    """Theirs, and ours with scanned blocks."""
    kind, fields = hf_models.CASES[request.param]
    theirs = hf_models.made(kind, fields | (FIVE if request.param == "gemma2" else {}))
    theirs.save_pretrained(tmp_path / "base")
    return theirs, interop.load(tmp_path / "base", scan=True), tmp_path


@pytest.mark.parametrize(
    ("pair", "shapes"),
    slow(pytest.param("llama 2", {(3,)}), pytest.param("gemma2", {(2,), ()})),
    indirect=["pair"],
)
def test_what_was_trained_scanned_is_read_by_peft_and_by_both_layouts(pair, shapes):
    """All layers stacked; or stacks by the rounds of a pattern, and a layer alone."""
    theirs, scanned, folder = pair
    family = theirs.config.model_type
    rng = np.random.default_rng(0)
    adapters = nn.lora(scanned, 2, 0, targets=r"projections|down", alpha=3.0)
    adapters = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), adapters)
    assert {x.shape[:-2] for x in adapters.down.values()} == shapes
    interop.save_adapters(scanned, adapters, folder / "adapter", family=family)
    tuned = nn.apply_adapters(scanned, adapters)
    assert parity_of.forward(theirs, tuned) > 1e-2, "they matter"
    for scan in (False, True):
        model = interop.load(folder / "base", scan=scan)
        again = nn.apply_adapters(model, interop.load_adapters(model, folder / "adapter"))
        assert parity_of.relative(logits_of(again), logits_of(tuned)) <= FORWARD["float32"]
    whole = peft.PeftModel.from_pretrained(theirs, folder / "adapter").eval()
    assert parity_of.forward(whole, tuned) <= FORWARD["float32"]


APART = {
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
    slow_except(("some layers",), [pytest.param(*case, id=name) for name, case in APART.items()]),
    indirect=["pair"],
)
def test_layers_that_peft_treats_apart(pair, options):
    """What a stack needs and PEFT does not have is zero, and stays zero in training."""
    theirs, scanned, folder = pair
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 5, "task_type": "CAUSAL_LM"} | options)
    tuned, rng = peft.get_peft_model(theirs, config).eval(), np.random.default_rng(1)
    with torch.no_grad():
        for key, x in tuned.named_parameters():
            if "lora_" in key:
                x.copy_(torch.from_numpy(0.3 * rng.standard_normal(x.shape)))
    tuned.save_pretrained(folder / "adapter")
    assert parity_of.forward(tuned, scanned) > 1e-2, "they matter"
    adapters = interop.load_adapters(scanned, folder / "adapter")
    assert parity_of.forward(tuned, nn.apply_adapters(scanned, adapters)) <= FORWARD["float32"]
    gradient = jax.jit(jax.grad(lambda a: jnp.mean(jnp.sin(nn.apply_adapters(scanned, a)(TOKENS).logits))))(adapters)
    filled = 0
    for name, down in adapters.down.items():
        empty = np.all(np.asarray(down) == 0, axis=-2) & np.all(np.asarray(adapters.up[name]) == 0, axis=-1)
        filled += empty.sum()
        assert not np.any(np.asarray(gradient.down[name]) * empty[..., None, :])
        assert not np.any(np.asarray(gradient.up[name]) * empty[..., :, None])
        assert np.any(gradient.up[name] != 0)
    assert (filled > 0) == ("lm_head" not in options["target_modules"])
