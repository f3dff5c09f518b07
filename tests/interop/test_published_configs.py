"""What transformers makes of a config, not what our own reader does: odd fields of published files, saved corner cases.

Saving is checked by reading back, with our own reader: an error that both sides share would not show there.
"""

from __future__ import annotations

import dataclasses
import json

import pytest
import transformers

from jax_attention import interop, models, normalizers, positions, scores
from tests.interop import hf_models, parity_of
from tests.models import small
from tests.support.tiers import slow_except
from tests.support.tolerances import FORWARD

LINEAR = {"rope_type": "linear", "factor": 8.0}
DYNAMIC = {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 3}
READ = {
    "gemma, early files": ("gemma", {"hidden_act": "gelu", "hidden_activation": None}),
    "gemma, two activations": ("gemma", {"hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh"}),
    "gemma2 as published": ("gemma2", {"hidden_act": "gelu_pytorch_tanh", "sliding_window_size": 4096}),
    "gemma3, a cap that is never used": ("gemma3", {"attn_logit_softcapping": 1.0}),
    "gemma3, a pattern that is never used": ("gemma3", {"_sliding_window_pattern": 2, "layer_types": None}),
    "gemma3, a pattern": ("gemma3", {"sliding_window_pattern": 2, "layer_types": None}),
    "gemma3, scaling beside nested ropes": ("gemma3", {"rope_scaling": LINEAR}),
    "llama, dynamic scaling": ("llama 2", {"rope_parameters": DYNAMIC, "max_position_embeddings": 8}),
    "gpt2-medium": ("gpt2", {"n_special": 0, "predict_special_tokens": True, "output_past": True, "_num_labels": 1}),
    "qwen 2.5": ("qwen2", {"use_mrope": False, "max_window_layers": 1, "sliding_window": 4, "layer_types": None}),
    "phi3": ("phi3", {"attention_bias": False, "original_max_position_embeddings": 4096}),
    "neox 20b": ("pythia", {"hidden_act": "gelu_fast", "rotary_pct": 0.3, "rotary_emb_base": 500}),
    "smollm": ("llama 2", {"is_llama_config": True, "rope_interleaved": False, "pretraining_tp": 1}),
}
QUICK = ("gemma3, a pattern", "llama, dynamic scaling")


@pytest.mark.parametrize("name", slow_except(QUICK, READ))
def test_fields_mean_what_transformers_makes_of_them(name, tmp_path):
    case, changes = READ[name]
    hf_models.build(case).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    # Dynamic frequencies stay stretched in their model after a long call; this is the first one.
    assert parity_of.forward(theirs, interop.load(tmp_path)) <= FORWARD["float32"]


SIZES = {
    "vocab_size": hf_models.V,
    "context": 32,
    "width": 12,
    "depth": 2,
    "num_heads": 2,
    "kv_heads": 1,
    "ff_size": 10,
}
LLAMA, GEMMA = models.llama(**SIZES), models.gemma2(**SIZES, head_size=6, windows=(4, None))
GEMMA3 = {"qk_norm": True, "logit_cap": None, "local_rope": positions.rotary(base=100.0)}
YARN = positions.rotary(scaling=positions.yarn_scaling(2.0, 16, truncate=False))
PARTIAL = positions.rotary(size=4, scaling=positions.linear_scaling(2.0))
SAVED = {
    "heads that do not divide": (LLAMA, {"num_heads": 5, "head_size": 4}, "mistral"),
    "dynamic scaling": (LLAMA, {"rope": positions.rotary(scaling=positions.dynamic_scaling(2.0, 32))}, "llama"),
    "softmax by name": (LLAMA, {"normalize": normalizers.softmax()}, "llama"),
    "all of a head by number": (LLAMA, {"rope": positions.rotary(size=6)}, "llama"),
    "a part of a head whose quotient rounds down": (
        models.gpt2(**{k: v for k, v in SIZES.items() if k != "kv_heads"} | {"width": 88}),
        {"position": "rotary", "rope": positions.rotary(size=30), "tied_head": False},
        "gpt_neox",
    ),
    "gemma2 without windows": (GEMMA, {"windows": (None,)}, "gemma2"),
    "gemma2 with its own scale": (GEMMA, {"score": scores.scaled_dot(1 / 3)}, "gemma2"),
    "gemma3": (GEMMA, GEMMA3 | {"score_cap": None}, "gemma3_text"),
}


@pytest.mark.parametrize("name", slow_except(("gemma2 with its own scale",), SAVED))
def test_saved_corner_cases_are_what_transformers_computes(name, tmp_path):
    config, changes, family = SAVED[name]
    config = dataclasses.replace(config, scan=False, **changes)
    model = small.filled(lambda: models.create(config), 5)
    assert interop.save(model, tmp_path) == family
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert parity_of.forward(theirs, model) <= FORWARD["float32"]


REFUSED = {
    "dynamic scaling from another length": (
        LLAMA,
        {"rope": positions.rotary(scaling=positions.dynamic_scaling(2.0, 8))},
    ),
    "a part of each head, scaled": (LLAMA, {"rope": PARTIAL}),
    "interleaved": (LLAMA, {"rope": positions.rotary(style="interleaved")}),
    "gemma2 with a strange scale": (GEMMA, {"score": scores.scaled_dot(0.3)}),
    "gemma3 with a cap": (GEMMA, GEMMA3),
    "gemma3 with an open ramp": (GEMMA, GEMMA3 | {"score_cap": None, "rope": YARN}),
    "gemma with exact GELU": (
        GEMMA,
        {"norm_place": "pre", "windows": (None,), "score_cap": None, "logit_cap": None, "score": None}
        | {"activation": "geglu"},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_transformers_computes_otherwise_is_refused(name, tmp_path):
    config, changes = REFUSED[name]
    config = dataclasses.replace(config, scan=False, **changes)
    model = small.filled(lambda: models.create(config))
    with pytest.raises(ValueError, match="config: expected a model that some family of Hugging Face computes"):
        interop.save(model, tmp_path)
