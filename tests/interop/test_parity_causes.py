"""Every cause is diagnosed where a fault is made, with the right side, in a layer that is not the first."""

from __future__ import annotations

import pytest
import torch

from jax_attention import interop, masks, scores
from jax_attention.interop.parity.hypotheses import HYPOTHESES
from jax_attention.positions import rotary
from tests.support import hf_faults, hf_models
from tests.support.tiers import slow, slow_except


def attention(layer):
    return lambda model: model.model.layers[layer].self_attn


def set_in_attention(layer, name, value):
    return lambda model: setattr(model.model.layers[layer].self_attn, name, value)


def with_mask(layer, change):
    return lambda model: hf_faults.change_mask(attention(layer)(model), change)


def make_sequential(model):
    model.gpt_neox.layers[1].use_parallel_residual = False


def remove_embedding_scale(model):
    model.model.embed_tokens.embed_scale.fill_(1.0)


HF_FAULTS = {
    "tanh in place of erf, GPT-NeoX": (
        ("pythia", lambda m: setattr(m.gpt_neox.layers[2].mlp, "act", torch.nn.GELU(approximate="tanh"))),
        (
            2,
            "feed-forward",
            "activation",
            "the activation is the tanh form of GELU in transformers, the exact GELU (erf) in JAX",
        ),
    ),
    "erf in place of tanh, GPT-2": (
        ("gpt2", lambda m: setattr(m.transformer.h[1].mlp, "act", torch.nn.GELU())),
        (
            1,
            "feed-forward",
            "activation",
            "the activation is the exact GELU (erf) in transformers, the tanh form of GELU in JAX",
        ),
    ),
    "gate": (
        ("gemma", lambda m: setattr(m.model.layers[1].mlp, "act_fn", torch.nn.SiLU())),
        (
            1,
            "feed-forward",
            "activation",
            "the activation is SiLU as gate in transformers, the tanh form of GELU as gate in JAX",
        ),
    ),
    "epsilon 1e-6": (
        ("gpt2", lambda m: setattr(m.transformer.h[1].ln_2, "eps", 1e-6)),
        (1, "feed-forward norm", "norm epsilon", "the epsilon of the norm is 1e-06 in transformers, 1e-05 in JAX"),
    ),
    "epsilon 1e-12": (
        ("gpt2", lambda m: setattr(m.transformer.h[2].ln_1, "eps", 1e-12)),
        (2, "attention norm", "norm epsilon", "the epsilon of the norm is 1e-12 in transformers, 1e-05 in JAX"),
    ),
    "epsilon 1e-8, the last norm": (
        ("gpt2", lambda m: setattr(m.transformer.ln_f, "eps", 1e-8)),
        (None, "final norm", "norm epsilon", "the epsilon of the norm is 1e-08 in transformers, 1e-05 in JAX"),
    ),
    "epsilon of a norm on heads": (
        ("qwen3", lambda m: setattr(m.model.layers[1].self_attn.k_norm, "variance_epsilon", 1e-5)),
        (1, "key norm", "norm epsilon", "the epsilon of the norm is 1e-05 in transformers, 1e-06 in JAX"),
    ),
    "scale of a norm one too large": (
        ("llama 2", hf_faults.plus(lambda m: m.model.layers[1].post_attention_layernorm, 1.0)),
        (1, "feed-forward norm", "norm scale", "the norm multiplies by scale + 1 in transformers, by the scale in JAX"),
    ),
    "scale of a norm one too small": (
        ("gemma2, one layer", hf_faults.plus(lambda m: m.model.norm, -1.0)),
        (None, "final norm", "norm scale", "the norm multiplies by the scale in transformers, by scale + 1 in JAX"),
    ),
    "scores not scaled": (
        ("llama 2", set_in_attention(1, "scaling", 1.0)),
        (1, "attention", "score scale", "scores are scaled by 1 in transformers, by 1 / sqrt(H) in JAX"),
    ),
    "scores scaled by the width": (
        ("llama 2", set_in_attention(2, "scaling", hf_models.D**-0.5)),
        (2, "attention", "score scale", "scores are scaled by 1 / sqrt(D) in transformers, by 1 / sqrt(H) in JAX"),
    ),
    "scores scaled twice": (
        ("llama 2", set_in_attention(1, "scaling", 1 / 14)),
        (1, "attention", "score scale", "scores are scaled by 1 / H in transformers, by 1 / sqrt(H) in JAX"),
    ),
    "future not hidden": (
        ("llama 2", with_mask(1, torch.zeros_like)),
        (1, "attention", "mask", "transformers lets every token see the future, JAX is causal"),
    ),
    "mask inverted": (
        ("llama 2", with_mask(2, hf_faults.inverted)),
        (2, "attention", "mask", "transformers inverts the mask, JAX is causal"),
    ),
    "hidden from itself": (
        ("llama 2", with_mask(1, hf_faults.without_itself)),
        (1, "attention", "mask", "transformers hides a token from itself, JAX is causal"),
    ),
    "padding not hidden": (
        ("llama 2", with_mask(1, hf_faults.without_padding)),
        (
            1,
            "attention",
            "padding",
            "only rows with padding differ: padding is attended to, or positions begin elsewhere",
        ),
    ),
    "rotary base": (
        ("llama 2", lambda m: hf_faults.other_base(attention(1)(m), 500000.0, 14)),
        (1, "attention", "RoPE base", "the rotary base is 500000 in transformers, 10000 in JAX"),
    ),
    "rotary style": (
        ("llama 2", lambda m: hf_faults.neighbours_to_halves(attention(2)(m), 14)),
        (
            2,
            "attention",
            "RoPE style",
            "RoPE rotates neighbouring pairs of the features in transformers, halves in JAX",
        ),
    ),
    "rotary scaling": (
        ("llama, linear", lambda m: hf_faults.other_base(attention(1)(m), 10000.0, 6)),
        (
            1,
            "attention",
            "RoPE scaling",
            "the rotary scaling is none in transformers, LinearScaling(factor=2.0) in JAX",
        ),
    ),
    "cap on scores missing": (
        ("gemma2", set_in_attention(1, "attn_logit_softcapping", None)),
        (1, "attention", "score cap", "the soft cap on scores is none in transformers, 1.5 in JAX"),
    ),
    "cap on logits missing": (
        ("gemma2, one layer", lambda m: setattr(m.config, "final_logit_softcapping", None)),
        (None, "head", "logit cap", "the soft cap on logits is none in transformers, 3 in JAX"),
    ),
    "output kernel transposed, GPT-2": (
        ("gpt2", hf_faults.transposed(lambda m: m.transformer.h[1].attn.c_proj)),
        (1, "attention", "transposed kernel", "the kernel of out is transposed on one side"),
    ),
    "query kernel transposed": (
        ("llama 2", hf_faults.transposed(lambda m: m.model.layers[2].self_attn.q_proj)),
        (2, "attention", "transposed kernel", "the kernel of query is transposed on one side"),
    ),
    "sequential residual": (
        ("pythia, two layers", make_sequential),
        (
            1,
            "block",
            "parallel residual",
            "attention and feed-forward run one after the other in transformers, in parallel in JAX",
        ),
    ),
    "embedding": (
        ("gemma2, one layer", remove_embedding_scale),
        (
            None,
            "embedding",
            "embedding scale",
            "embeddings are not scaled in transformers, multiplied by sqrt(D) in JAX",
        ),
    ),
}
QUICK_HF_FAULTS = (
    "erf in place of tanh, GPT-2",
    "scores not scaled",
    "mask inverted",
    "output kernel transposed, GPT-2",
    "sequential residual",
    "embedding",
)
"""Activation, scale, mask, position, weights, embedding; `test_a_fault_in_jax_is_diagnosed` has a norm."""


@pytest.mark.parametrize("fault", slow_except(QUICK_HF_FAULTS, HF_FAULTS))
def test_a_fault_in_transformers_is_diagnosed(pair, fault):
    (name, change), (layer, point, cause, sentence) = HF_FAULTS[fault]
    hf_model, jax_model = pair(name)
    report = interop.compare(hf_faults.in_hf(hf_model, change), jax_model)
    assert (report.suspect.layer, report.suspect.point) == (layer, point)
    assert report.cause == interop.Diagnosis(cause, sentence)
    assert report.verdict.endswith(sentence)


JAX_FAULTS = {
    "tanh": (("pythia", {"activation": "gelu_tanh"}), (0, "activation", "the tanh form of GELU in JAX")),
    "epsilon": (("llama 2", {"norm_epsilon": 1e-5}), (0, "norm epsilon", "1e-06 in transformers, 1e-05 in JAX")),
    "future": (("llama 2", {"mask": None}), (0, "mask", "transformers is causal, JAX lets every token see the future")),
    "inverted": (
        ("llama 2", {"mask": ~masks.causal()}),
        (0, "mask", "transformers is causal, JAX has the mask ~causal()"),
    ),
    "window too wide": (
        ("qwen2, windows above", {"windows": (None, 5, 5)}),
        (1, "window", "the window has 4 keys in transformers, 5 in JAX"),
    ),
    "window too narrow": (
        ("qwen2, windows above", {"windows": (None, 3, 3)}),
        (1, "window", "the window has 4 keys in transformers, 3 in JAX"),
    ),
    "window of a layer with the local rotary embedding": (
        ("gemma3", {"windows": (4, None, None)}),
        (0, "window", "the window has 5 keys in transformers, 4 in JAX"),
    ),
    "window where there is none": (
        ("mistral, no window", {"windows": (None, 5, 5)}),
        (1, "window", "the window has no bound in transformers, 5 keys in JAX"),
    ),
    "scale": (
        ("llama 2", {"score": scores.scaled_dot(1.0)}),
        (0, "score scale", "scores are scaled by 1 / sqrt(H) in transformers, by 1 in JAX"),
    ),
    "style": (
        ("llama 2", {"rope": rotary(style="interleaved")}),
        (0, "RoPE style", "RoPE rotates halves of the features in transformers, neighbouring pairs in JAX"),
    ),
    "base": (("llama 2", {"rope": rotary(base=1e6)}), (0, "RoPE base", "is 10000 in transformers, 1e+06 in JAX")),
    "cap": (("llama 2", {"score_cap": 50.0}), (0, "score cap", "none in transformers, 50 in JAX")),
    "sequential residual": (
        ("pythia", {"norm_place": "pre"}),
        (0, "parallel residual", "attention and feed-forward run in parallel in transformers"),
    ),
}


@pytest.mark.parametrize("fault", slow_except(("epsilon",), JAX_FAULTS))
def test_a_fault_in_jax_is_diagnosed(pair, fault):
    (name, fields), (layer, cause, sentence) = JAX_FAULTS[fault]
    hf_model, jax_model = pair(name)
    report = interop.compare(hf_model, hf_faults.in_jax(jax_model, **fields))
    assert report.suspect.layer == layer
    assert report.cause.name == cause
    assert sentence in report.cause.sentence


@pytest.mark.parametrize(("bits", "name"), [(10, "TF32"), pytest.param(7, "bfloat16", marks=pytest.mark.slow)])
def test_products_of_narrow_numbers_are_diagnosed(pair, bits, name):
    hf_model, jax_model = pair("llama 2")
    report = interop.compare(hf_faults.in_hf(hf_model, lambda model: hf_faults.narrow(model, bits)), jax_model)
    assert not report.equal
    assert report.cause.name == name


@pytest.mark.parametrize("layer", [1, *slow(2)])
def test_noise_in_one_weight_is_found_in_its_layer_and_has_no_cause(pair, layer):
    hf_model, jax_model = pair("gpt2")
    noisy = hf_faults.in_hf(hf_model, lambda m: m.transformer.h[layer].mlp.c_fc.weight[3, 4].add_(0.05))
    report = interop.compare(noisy, jax_model)
    assert (report.suspect.layer, report.suspect.point, report.cause) == (layer, "feed-forward", None)
    assert report.verdict == f"suspicious from layer {layer}, feed-forward: cause unknown"
    wrong = {(row.layer, row.point) for row in report.rows if not row.equal and row.point not in ("stream", "logits")}
    assert wrong == {(layer, "feed-forward"), (layer, "block")}


def test_every_hypothesis_has_a_fault():
    causes = {expected[2] for _, expected in HF_FAULTS.values()} | {cause for _, (_, cause, _) in JAX_FAULTS.values()}
    assert {hypothesis.name for hypothesis in HYPOTHESES} - causes == {"logit scale"}  # only T5 has one


@pytest.mark.slow
def test_two_faults_in_one_part_have_no_cause(pair):
    hf_model, jax_model = pair("llama 2")
    other = hf_faults.in_hf(hf_model, set_in_attention(0, "scaling", 0.7))
    report = interop.compare(other, hf_faults.in_jax(jax_model, mask=~masks.causal()))
    assert (report.suspect.layer, report.suspect.point, report.cause) == (0, "attention", None)
