"""Parity reports of encoders and encoder-decoders: sound models differ by rounding, faults are named in both stacks."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import transformers

from jax_attention import data, interop
from jax_attention.interop.parity.hypotheses import HYPOTHESES
from jax_attention.interop.parity.stacks import split_config
from jax_attention.interop.parity.token_batch import choose_tokens
from tests.support import hf_faults, hf_models
from tests.support.tiers import slow_except

TWO = "marian, two vocabularies, untied"
SOUND = slow_except(("t5",), hf_models.ENCODERS | hf_models.ENCODER_DECODERS)
ENDS = {
    "": ["embedding norm", "embedding", "head norm", "head", "logits"],
    "t5": ["embedding", "final norm", "embedding", "final norm", "head", "logits"],
    "bart": ["embedding norm", "embedding", "embedding norm", "embedding", "head", "logits"],
    "marian": ["embedding", "embedding", "head", "logits"],
}
FIRST = ["attention", "attention norm"]
SECOND = ["feed-forward", "feed-forward norm", "block", "stream"]
BLOCKS = {"": [*FIRST, *SECOND], "decoder": [*FIRST, "cross-attention", "cross-attention norm", *SECOND]}


# --- Rounding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOUND)
def test_sound_models_differ_by_rounding(pair, name):
    hf_model, jax_model = pair(name)
    report = interop.compare(hf_model, jax_model)
    assert (report.verdict, report.cause, report.notes) == ("rounding", None, ())
    assert max(row.used for row in report.rows) < 0.5
    ends = [row.point for row in report.rows if row.layer is None]
    assert ends == ENDS.get(hf_model.config.model_type, ENDS[""])
    if name != "t5" and name != "t5 1.1":  # their norms come first
        for stack, points in BLOCKS.items():
            names = [row.point for row in report.rows if row.stack == stack and row.layer == 1]
            assert names in ([], points)
    streams = [row.place for row in report.rows if row.point == "stream"]
    pair_streams = ["encoder 0", "encoder 1", "decoder 0", "decoder 1", "decoder 2"]
    assert streams == (pair_streams if name in hf_models.ENCODER_DECODERS else ["0", "1", "2"])
    assert all(f"{place} stream " in str(report) for place in streams)


@pytest.mark.slow
def test_scanned_blocks_of_an_encoder_decoder(pair):
    hf_model, jax_model = pair("t5")
    assert interop.compare(hf_model, jax_model.with_scan(True)).equal


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta, untied", "gpt2"])
def test_padding_on_either_side(pair, name):
    tokens = np.array([[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, -1, -1], [-1, 1, 1, 8, 9, 10]])
    assert interop.compare(*pair(name), tokens=tokens).equal


@pytest.mark.slow
def test_source_and_target_are_what_both_read(tmp_path):
    hf_model = hf_models.build("bart")
    hf_model.save_pretrained(tmp_path)
    data.Characters("".join(map(chr, range(97, 97 + hf_models.V)))).save(tmp_path)
    by_text = interop.compare(tmp_path, text="abcdefg", source="hijkl")
    assert by_text.rows == interop.compare(tmp_path, tokens=np.arange(7), source=np.arange(7, 12)).rows
    assert by_text.equal
    assert by_text.title == f"BartForConditionalGeneration of {tmp_path}"


def test_the_target_is_random_if_only_a_source_is_passed(pair):
    configs = split_config(pair("bart")[1].config)
    source = np.array([[5, 6, -1], [5, 6, 7], [-1, 6, 7]])
    batches = choose_tokens(configs, None, None, None, source)
    assert np.array_equal(batches["encoder"].is_token, source >= 0)
    assert batches["decoder"].tokens.shape == (3, 16)
    random = choose_tokens(configs, None, None, None, None)
    assert [batch.is_token.sum(axis=-1).tolist() for batch in random.values()] == [[19, 15], [16, 12]]
    assert random["encoder"].is_token[:, 0].all()  # padding comes after the source and before the target
    assert random["decoder"].is_token[:, -1].all()


def test_a_bare_encoder_is_compared_without_a_head(tmp_path):
    hf_models.build("bert, one layer").bert.save_pretrained(tmp_path)
    report = interop.compare(tmp_path)
    assert report.equal
    assert report.rows[-1].point == "stream"
    assert report.notes == ("The folder has no head: logits are not compared.",)


def test_the_page_has_a_column_for_every_layer_of_both_stacks(pair):
    page = interop.compare(*pair("t5")).html()
    assert " ".join(re.findall(r'"middle">(\w+)<', page)) == "encoder in 0 1 out decoder in 0 1 2 out"
    assert page.count("<rect") == 2 + 2 + 3 + 2  # layers of both stacks, points before and after them
    assert page.count("<circle") == 5 + 1
    assert "<td>encoder 1</td>" in page


# --- Causes ----------------------------------------------------------------------------------------------------------


def bert(layer):
    return lambda model: model.bert.encoder.layer[layer]


def bart(stack, layer):
    return lambda model: getattr(model.model, stack).layers[layer]


def t5(stack, layer, sublayer):
    return lambda model: getattr(model, stack).block[layer].layer[sublayer]


def with_mask(find, change, name="attention_mask"):
    return lambda model: hf_faults.change_mask(find(model), change, name)


TANH = torch.nn.GELU(approximate="tanh")
PADDING = "only rows with padding differ: padding is attended to, or positions begin elsewhere"
FAULTS = {
    "activation": (
        ("bert", lambda m: setattr(bert(1)(m).intermediate, "intermediate_act_fn", TANH)),
        (
            "",
            1,
            "feed-forward",
            "activation",
            "the activation is the tanh form of GELU in transformers, the exact GELU (erf) in JAX",
        ),
    ),
    "activation of the head": (
        ("bert, two layers", lambda m: setattr(m.cls.predictions.transform, "transform_act_fn", TANH)),
        (
            "",
            None,
            "head",
            "activation",
            "the activation is the tanh form of GELU in transformers, the exact GELU (erf) in JAX",
        ),
    ),
    "kernel of the head": (
        ("bert", hf_faults.transposed(lambda m: m.cls.predictions.transform.dense)),
        ("", None, "head", "transposed kernel", "the kernel of the transform is transposed on one side"),
    ),
    "scale of a norm after the sum": (
        ("bert, two layers", hf_faults.plus(lambda m: bert(1)(m).attention.output.LayerNorm, 1.0)),
        (
            "",
            1,
            "attention norm",
            "norm scale",
            "the norm multiplies by scale + 1 in transformers, by the scale in JAX",
        ),
    ),
    "kernel in a module that also has the norm": (
        ("bert", hf_faults.transposed(lambda m: bert(1)(m).attention.output.dense)),
        ("", 1, "attention", "transposed kernel", "the kernel of out is transposed on one side"),
    ),
    "future hidden": (
        ("distilbert", with_mask(lambda m: m.distilbert.transformer.layer[1].attention, hf_faults.causal)),
        ("", 1, "attention", "mask", "transformers is causal, JAX lets every token see the future"),
    ),
    "hidden from itself": (
        ("bart", with_mask(lambda m: bart("encoder", 1)(m).self_attn, hf_faults.without_itself)),
        (
            "encoder",
            1,
            "attention",
            "mask",
            "transformers hides a token from itself, JAX lets every token see the future",
        ),
    ),
    "epsilon": (
        ("bart", lambda m: setattr(bart("encoder", 1)(m).final_layer_norm, "eps", 1e-12)),
        ("encoder", 1, "feed-forward norm", "norm epsilon", "is 1e-12 in transformers, 1e-05 in JAX"),
    ),
    "epsilon after cross-attention": (
        ("bart", lambda m: setattr(bart("decoder", 2)(m).encoder_attn_layer_norm, "eps", 1e-6)),
        ("decoder", 2, "cross-attention norm", "norm epsilon", "is 1e-06 in transformers, 1e-05 in JAX"),
    ),
    "kernel of cross-attention": (
        ("bart", hf_faults.transposed(lambda m: bart("decoder", 1)(m).encoder_attn.k_proj)),
        ("decoder", 1, "cross-attention", "transposed kernel", "the kernel of key is transposed on one side"),
    ),
    "padding of the source not hidden": (
        ("bart", with_mask(lambda m: bart("decoder", 2)(m).encoder_attn, torch.zeros_like)),
        ("decoder", 2, "cross-attention", "padding", PADDING),
    ),
    "padding of the source not hidden in T5": (
        ("t5", with_mask(lambda m: t5("decoder", 1, 1)(m).EncDecAttention, torch.zeros_like, "mask")),
        ("decoder", 1, "cross-attention", "padding", PADDING),
    ),
    "padding not hidden in the encoder": (
        ("bart", with_mask(lambda m: bart("encoder", 1)(m).self_attn, torch.zeros_like)),
        ("encoder", 1, "attention", "padding", PADDING),
    ),
    "future not hidden": (
        ("bart", with_mask(lambda m: bart("decoder", 1)(m).self_attn, torch.zeros_like)),
        ("decoder", 1, "attention", "mask", "transformers lets every token see the future, JAX is causal"),
    ),
    "future not hidden with a table of positions": (
        ("t5", with_mask(lambda m: t5("decoder", 2, 0)(m).SelfAttention, torch.zeros_like, "mask")),
        ("decoder", 2, "attention", "mask", "transformers lets every token see the future, JAX is causal"),
    ),
    "scores": (
        ("t5", lambda m: setattr(t5("encoder", 1, 0)(m).SelfAttention, "scaling", 6**-0.5)),
        ("encoder", 1, "attention", "score scale", "scores are scaled by 1 / sqrt(H) in transformers, by 1 in JAX"),
    ),
    "scores of cross-attention": (
        ("t5", lambda m: setattr(t5("decoder", 1, 1)(m).EncDecAttention, "scaling", 6**-0.5)),
        (
            "decoder",
            1,
            "cross-attention",
            "score scale",
            "scores are scaled by 1 / sqrt(H) in transformers, by 1 in JAX",
        ),
    ),
    "logits": (
        ("t5", lambda m: setattr(m.config, "scale_decoder_outputs", False)),
        (
            "decoder",
            None,
            "head",
            "logit scale",
            "the input of the head is multiplied by 1 in transformers, by 1 / sqrt(D) in JAX",
        ),
    ),
    "embedding of the target": (
        (TWO, lambda m: setattr(m.model.decoder, "embed_scale", hf_models.D**0.5)),
        (
            "decoder",
            None,
            "embedding",
            "embedding scale",
            "embeddings are multiplied by sqrt(D) in transformers, not scaled in JAX",
        ),
    ),
    "TF32": (
        ("bart", lambda m: hf_faults.narrow(m, 10)),
        ("encoder", 0, "attention", "TF32", "every layer differs as if one side multiplied in TF32"),
    ),
    "noise in a token type": (
        ("bert", lambda m: m.bert.embeddings.token_type_embeddings.weight[1, 3].add_(0.05)),
        ("", None, "embedding", None, "cause unknown"),
    ),
    "noise in the encoder": (
        (TWO, lambda m: bart("encoder", 1)(m).fc1.weight[3, 4].add_(0.05)),
        ("encoder", 1, "feed-forward", None, "cause unknown"),
    ),
    "noise in cross-attention": (
        ("t5", lambda m: t5("decoder", 2, 1)(m).EncDecAttention.v.weight[3, 4].add_(0.05)),
        ("decoder", 2, "cross-attention", None, "cause unknown"),
    ),
}
QUICK = ("activation of the head", "scale of a norm after the sum")
QUICK += ("padding of the source not hidden in T5", "scores of cross-attention", "logits")
"""Causes that only encoders or encoder-decoders have, one model each; test_parity_causes.py has the other ones."""


@pytest.mark.parametrize("fault", slow_except(QUICK, FAULTS))
def test_a_fault_is_found_in_its_stack_and_layer(pair, fault):
    (name, change), (stack, layer, point, cause, sentence) = FAULTS[fault]
    hf_model, jax_model = pair(name)
    report = interop.compare(hf_faults.in_hf(hf_model, change), jax_model)
    assert (report.suspect.stack, report.suspect.layer, report.suspect.point) == (stack, layer, point)
    assert (report.cause.name if report.cause else None) == cause
    assert report.verdict.endswith(sentence)
    place = " ".join(word for word in (stack, "" if layer is None else f"layer {layer}") if word)
    assert report.verdict.startswith("suspicious from " + (f"{place}, " if place else "") + f"{point}: ")
    if cause != "TF32":
        local = {(row.stack, row.layer, row.point) for row in report.rows if not row.equal} - {(stack, layer, "block")}
        assert {place for place in local if place[2] not in ("stream", "logits")} == {(stack, layer, point)}


@pytest.mark.slow
def test_padding_of_the_source_is_diagnosed_with_a_target_without_padding(pair):
    hf_model, jax_model = pair("bart")
    change = with_mask(lambda m: bart("decoder", 1)(m).encoder_attn, torch.zeros_like)
    target = np.random.default_rng(1).integers(0, hf_models.V, (2, 16))
    report = interop.compare(hf_faults.in_hf(hf_model, change), jax_model, tokens=target)
    assert (report.suspect.place, report.cause) == ("decoder 1", interop.Diagnosis("padding", PADDING))


def test_the_cause_that_only_encoder_decoders_have_has_a_fault():
    assert "logit scale" in {hypothesis.name for hypothesis in HYPOTHESES}
    assert "logit scale" in {expected[3] for _, expected in FAULTS.values()}


# --- Wrong calls -----------------------------------------------------------------------------------------------------


def test_wrong_calls_are_refused(pair):
    hf_model, jax_model = pair("t5")
    with pytest.raises(ValueError, match="source: expected ids below vocab_size = 37, got 37"):
        interop.compare(hf_model, jax_model, source=np.array([37]))
    with pytest.raises(ValueError, match=r"source: expected as many rows as the target has, got \[1, 3\]"):
        interop.compare(hf_model, jax_model, source=np.array([1]), tokens=np.ones((3, 2), int))
    with pytest.raises(ValueError, match="source: expected tokens for a model in memory, got text"):
        interop.compare(hf_model, jax_model, source="abc")
    with pytest.raises(
        TypeError, match="jax_model: expected a model of EncoderDecoderConfig, as hf_model is, got one of LMConfig"
    ):
        interop.compare(hf_model, jax_model.decoder)
    with pytest.raises(TypeError, match="language-model head, T5ForConditionalGeneration, got T5EncoderModel"):
        interop.compare(transformers.T5EncoderModel(hf_model.config))
    sizes = transformers.T5Config(**hf_models.T5 | {"num_layers": 1, "num_decoder_layers": 2})
    small = transformers.T5ForConditionalGeneration(sizes)
    with pytest.raises(ValueError, match=r"sizes of hf_model, encoder.depth = 1, got 2; decoder.depth = 2, got 3"):
        interop.compare(small, jax_model)
