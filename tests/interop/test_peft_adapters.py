"""LoRA against PEFT: adapters that it saved and adapters that this library saved, for every kind of kernel."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file, save_file

from jax_attention import interop, models, nn
from tests.models import small
from tests.support import hf_models, hf_parity
from tests.support.tiers import slow_except
from tests.support.tolerances import FORWARD

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]
"""PEFT reads the first from transformers; by the second it says that it also saves the weights of an adapted head."""

TARGETS = {
    "gpt2": ["c_attn", "c_fc"],
    "pythia": ["query_key_value", "dense_h_to_4h"],
    "llama 3": ["q_proj", "v_proj", "down_proj"],
    "phi3": ["qkv_proj", "gate_up_proj", "o_proj"],
}
"""Query without key, kernels that are not transposed, projections packed head by head, two kernels in one layer."""


@pytest.fixture
def pair(request, tmp_path):
    hf_model = hf_models.build(request.param)
    hf_model.save_pretrained(tmp_path / "base")
    return request.param, hf_model, interop.load(tmp_path / "base")


def randomised(adapters, seed=0):
    """Adapters with random factors: fresh ones change nothing."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), adapters)


def check_read(hf_model, jax_model, folder, **options):
    """Check the logits with adapters that PEFT saves with these options of `LoraConfig`."""
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 5, "task_type": "CAUSAL_LM"} | options)
    tuned, rng = peft.get_peft_model(hf_model, config).eval(), np.random.default_rng(1)
    with torch.no_grad():
        for key, x in tuned.named_parameters():
            if "lora_" in key:
                x.copy_(torch.from_numpy(0.3 * rng.standard_normal(x.shape)))
    tuned.save_pretrained(folder)
    assert hf_parity.forward(tuned, jax_model) > 1e-2, "the adapters change the logits"
    assert (
        hf_parity.forward(tuned, nn.apply_adapters(jax_model, interop.load_adapters(jax_model, folder)))
        <= FORWARD["float32"]
    )


@pytest.mark.parametrize("pair", slow_except(("gpt2", "phi3"), TARGETS), indirect=True)
def test_load_reads_adapters_of_peft(pair, tmp_path):
    name, hf_model, jax_model = pair
    check_read(hf_model, jax_model, tmp_path / "adapter", target_modules=TARGETS[name], fan_in_fan_out=name == "gpt2")


QUICK = {("pythia", r"\.projections\.")}
OPTIONS = {
    "patterns": {
        "target_modules": ["q_proj", "k_proj", "up_proj"],
        "alpha_pattern": {"layers.0.*": 4, "^model.layers.1.self_attn.q_proj": 1, "q_proj|k_proj": 2},
        "rank_pattern": {"up_proj": 5},
    },
    "root of the rank": {"target_modules": ["o_proj"], "use_rslora": True, "init_lora_weights": "gaussian"},
    "head": {"target_modules": ["gate_proj", "lm_head"]},
    "packed as in Phi 3": {"target_modules": ["qkv_proj", "gate_up_proj"]},
}


@pytest.mark.parametrize("name", slow_except(("patterns",), OPTIONS))
def test_options_of_peft(tmp_path, name):
    """A Phi 3 that rotates whole heads is a Llama with other names."""
    kind, fields = hf_models.CASES["phi3" if "Phi" in name else "llama 2"]
    hf_model = hf_models.make_model(
        kind, fields | hf_models.rope() | ({"sliding_window": None} if "Phi" in name else {})
    )
    hf_model.save_pretrained(tmp_path / "base")
    check_read(hf_model, interop.load(tmp_path / "base"), tmp_path / "adapter", **OPTIONS[name])


@pytest.mark.parametrize(
    ("pair", "targets"),
    [
        pytest.param(name, targets, marks=() if (name, targets) in QUICK else pytest.mark.slow)
        for name in TARGETS
        for targets in (r"\.projections\.", "")
    ],
    indirect=["pair"],
)
def test_peft_reads_saved_adapters(pair, tmp_path, targets):
    _, hf_model, jax_model = pair
    adapters = randomised(nn.lora(jax_model, 2, 0, targets=targets, alpha=3.0))
    interop.save_adapters(jax_model, adapters, tmp_path / "adapter", family=hf_model.config.model_type, base="a base")
    tuned = peft.PeftModel.from_pretrained(hf_model, tmp_path / "adapter").eval()
    assert hf_parity.forward(tuned, nn.apply_adapters(jax_model, adapters)) <= FORWARD["float32"]
    again = nn.apply_adapters(jax_model, interop.load_adapters(jax_model, tmp_path / "adapter"))
    assert hf_parity.forward(tuned, again) <= FORWARD["float32"]


@pytest.mark.parametrize("name", slow_except(("t5",), ("bert", "roberta", "distilbert", "t5", "bart", "marian")))
def test_encoders_and_encoder_decoders_too(name, tmp_path):
    hf_model = hf_models.build("t5, three layers" if name == "t5" else name)
    hf_model.save_pretrained(tmp_path / "base")
    jax_model = interop.load(tmp_path / "base")
    adapters = randomised(nn.lora(jax_model, 2, 0))
    assert any("cross" in path for path in adapters.down) == (name in ("t5", "bart", "marian"))
    interop.save_adapters(jax_model, adapters, tmp_path / "adapter", family=name)
    tuned = peft.PeftModel.from_pretrained(hf_model, tmp_path / "adapter").eval()
    assert hf_parity.forward(tuned, jax_model) > 1e-2, "the adapters change the logits"
    assert hf_parity.forward(tuned, nn.apply_adapters(jax_model, adapters)) <= FORWARD["float32"]
    again = nn.apply_adapters(jax_model, interop.load_adapters(jax_model, tmp_path / "adapter", family=name))
    assert hf_parity.forward(tuned, again) <= FORWARD["float32"]
    if name == "t5":
        with pytest.raises(ValueError, match=r"expected an encoder-decoder with single blocks, got scanned ones"):
            interop.load_adapters(models.scan_layers(jax_model), tmp_path / "adapter")


# --- Adapters and models ---------------------------------------------------------------------------------------------

CONFIG = models.llama(vocab_size=19, context=16, width=8, depth=2, num_heads=2, kv_heads=1, scan=False)
MODEL = small.filled(lambda: models.create(CONFIG))
TOKENS = jnp.asarray(hf_models.tokens(length=5) % 19)


def test_only_adapters_are_trained_and_a_fresh_one_changes_nothing():
    adapters = nn.lora(MODEL, 2, 0)
    assert (adapters.scale, nn.lora(MODEL, 2, 0, alpha=3.0).scale) == (1.0, 1.5)

    @jax.jit
    def run(model, adapters):
        def loss(adapters):
            logits = nn.apply_adapters(model, adapters)(TOKENS).logits
            return jnp.mean(jnp.sin(logits)), logits

        return jax.value_and_grad(loss, has_aux=True)(adapters)

    (before, logits), gradient = run(MODEL, adapters)
    np.testing.assert_array_equal(logits, jax.jit(lambda m: m(TOKENS).logits)(MODEL))
    assert all(np.all(np.asarray(x) == 0) for x in gradient.down.values())
    assert all(np.any(np.asarray(x) != 0) for x in gradient.up.values())
    (after, _), _ = run(MODEL, jax.tree.map(lambda a, g: np.asarray(a) - np.asarray(g), adapters, gradient))
    assert after < before


def test_a_scanned_model_has_stacked_adapters():
    stacked = models.scan_layers(MODEL)
    adapters = randomised(nn.lora(stacked, 2, 0))
    (down,) = adapters.down.values()
    assert down.shape == (2, 8, 2)
    changed, kernel = nn.apply_adapters(stacked, adapters), "projections"
    (up,) = adapters.up.values()
    for layer, block in enumerate(models.unroll_layers(changed).blocks.rest):
        plain = MODEL.blocks.rest[layer].attention.projections.joined.kernel[...]
        adapted = block.attention.projections.joined.kernel[...]
        np.testing.assert_allclose(adapted, plain + down[layer] @ up[layer], atol=1e-6, err_msg=kernel)


def test_half_precision_kernels_stay_in_half_precision():
    half = jax.tree.map(lambda x: np.asarray(x).astype(jnp.bfloat16), MODEL)
    changed = nn.apply_adapters(half, randomised(nn.lora(half, 2, 0)))
    assert {x.dtype for x in jax.tree.leaves(changed)} == {jnp.dtype(jnp.bfloat16)}


def test_errors_name_the_mistake(tmp_path):
    with pytest.raises(
        ValueError, match=r"targets: expected a pattern that finds one of blocks.rest.0.*, got 'banana'"
    ):
        nn.lora(MODEL, 2, 0, targets="banana")
    with pytest.raises(ValueError, match=r"rank: expected .* 1.*got 0"):
        nn.lora(MODEL, 0, 0)
    adapters = nn.lora(MODEL, 2, 0)
    with pytest.raises(ValueError, match=r"adapters: expected paths of kernels in this module, got 'blocks.rest.0"):
        nn.apply_adapters(models.scan_layers(MODEL), adapters)
    with pytest.raises(ValueError, match=r"adapters: expected factors \[\.\.\., D, r\] .* got \(8, 2\) and \(3, 24\)"):
        nn.apply_adapters(MODEL, nn.Adapters(adapters.down, {name: jnp.ones((3, 24)) for name in adapters.up}))
    with pytest.raises(ValueError, match=r"adapters: expected paths of kernels in this module, got 'blocks.rest.0"):
        interop.save_adapters(models.scan_layers(MODEL), adapters, tmp_path)
    interop.save_adapters(MODEL, adapters, tmp_path)
    with pytest.raises(FileExistsError, match=r"expected a folder without adapters, got adapter_config.json"):
        interop.save_adapters(MODEL, adapters, tmp_path)


def test_adapters_of_another_size(tmp_path):
    config = models.llama(vocab_size=19, width=12, depth=2, num_heads=2, kv_heads=1, scan=False)
    wide = small.filled(lambda: models.create(config))
    interop.save_adapters(wide, nn.lora(wide, 2, 0), tmp_path)
    with pytest.raises(
        ValueError, match=r"factors \[r, 8\] and \[8, r\] for model.layers.0.self_attn.q_proj.weight, got"
    ):
        interop.load_adapters(MODEL, tmp_path)


def test_damaged_adapter_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: expected adapter_config.json in"):
        interop.load_adapters(MODEL, tmp_path)
    interop.save_adapters(MODEL, nn.lora(MODEL, 2, 0), tmp_path)
    weights, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    arrays, fields = load_file(weights), json.loads(config.read_text())
    save_file(arrays | {"base_model.model.lm_head.extra": np.ones(3, np.float32)}, weights)
    with pytest.raises(
        ValueError, match=r"expected adapters of this model, got unused: base_model.model.lm_head.extra"
    ):
        interop.load_adapters(MODEL, tmp_path)
    for change, message in (
        ({"lora_bias": True}, r"expected lora_bias = False"),
        ({"init_lora_weights": "pissa"}, r"expected init_lora_weights = True or False"),
        ({"layer_replication": [[0, 1], [0, 1]]}, r"expected LoRA or DoRA, got also layer_replication"),
        ({"trainable_token_indices": [3]}, r"expected LoRA or DoRA, got also trainable_token_indices"),
        ({"peft_type": "IA3"}, r"expected peft_type = 'LORA'"),
    ):
        config.write_text(json.dumps(fields | change))
        with pytest.raises(ValueError, match=message):
            interop.load_adapters(MODEL, tmp_path)
