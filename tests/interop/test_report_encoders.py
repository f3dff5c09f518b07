"""Encoders and encoder-decoders in the report: sound ones differ by rounding, faults are named, in both halves."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import transformers
from jax_attention.interop.report.causes import HYPOTHESES
from jax_attention.interop.report.halves import configs_of
from jax_attention.interop.report.tokens import chosen

from jax_attention import data, interop
from tests.interop import hf_models, planted
from tests.support.tiers import slow_except

TWO = "marian, two vocabularies, untied"
SOUND = slow_except(("t5",), hf_models.ENCODERS | hf_models.PAIRS)
ENDS = {
    "": ["embedding norm", "embedding", "head norm", "head", "logits"],
    "t5": ["embedding", "final norm", "embedding", "final norm", "head", "logits"],
    "bart": ["embedding norm", "embedding", "embedding norm", "embedding", "head", "logits"],
    "marian": ["embedding", "embedding", "head", "logits"],
}
FIRST = ["attention", "attention norm"]
SECOND = ["feed-forward", "feed-forward norm", "block", "stream"]
BLOCKS = {"": [*FIRST, *SECOND], "decoder": [*FIRST, "cross-attention", "cross-attention norm", *SECOND]}


def ours_of(theirs, path):
    theirs.save_pretrained(path)
    return interop.load(path)


# --- Rounding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOUND)
def test_sound_models_differ_by_rounding(pair, name):
    theirs, ours = pair(name)
    report = interop.compare(theirs, ours)
    assert (report.verdict, report.cause, report.notes) == ("rounding", None, ())
    assert max(row.used for row in report.rows) < 0.5
    ends = [row.point for row in report.rows if row.layer is None]
    assert ends == ENDS.get(theirs.config.model_type, ENDS[""])
    if name != "t5" and name != "t5 1.1":  # whose norms come first
        for half, points in BLOCKS.items():
            found = [row.point for row in report.rows if row.half == half and row.layer == 1]
            assert found in ([], points)
    streams = [row.place for row in report.rows if row.point == "stream"]
    pair_streams = ["encoder 0", "encoder 1", "decoder 0", "decoder 1", "decoder 2"]
    assert streams == (pair_streams if name in hf_models.PAIRS else ["0", "1", "2"])
    assert all(f"{place} stream " in str(report) for place in streams)


@pytest.mark.slow
def test_a_pair_whose_blocks_are_scanned(pair):
    theirs, ours = pair("t5")
    assert interop.compare(theirs, ours.with_scan(True)).equal


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta, untied", "gpt2"])
def test_padding_may_stand_on_either_side(pair, name):
    tokens = np.array([[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, -1, -1], [-1, 1, 1, 8, 9, 10]])
    assert interop.compare(*pair(name), tokens=tokens).equal


@pytest.mark.slow
def test_source_and_target_are_what_both_read(tmp_path):
    theirs = hf_models.build("bart")
    theirs.save_pretrained(tmp_path)
    data.Characters("".join(map(chr, range(97, 97 + hf_models.V)))).save(tmp_path)
    by_text = interop.compare(tmp_path, text="abcdefg", source="hijkl")
    assert by_text.rows == interop.compare(tmp_path, tokens=np.arange(7), source=np.arange(7, 12)).rows
    assert by_text.equal
    assert by_text.title == f"BartForConditionalGeneration of {tmp_path}"


def test_of_source_and_target_one_is_random_where_only_the_other_is_given(pair):
    configs = configs_of(pair("bart")[1].config)
    source = np.array([[5, 6, -1], [5, 6, 7], [-1, 6, 7]])
    given = chosen(configs, None, None, None, source)
    assert np.array_equal(given["encoder"].seen, source >= 0)
    assert given["decoder"].tokens.shape == (3, 16)
    random = chosen(configs, None, None, None, None)
    assert [read.seen.sum(axis=-1).tolist() for read in random.values()] == [[19, 15], [16, 12]]
    assert random["encoder"].seen[:, 0].all()  # padding stands behind the source, in front of the target
    assert random["decoder"].seen[:, -1].all()


def test_a_bare_encoder_is_compared_without_a_head(tmp_path):
    hf_models.build("bert, one layer").bert.save_pretrained(tmp_path)
    report = interop.compare(tmp_path)
    assert report.equal
    assert report.rows[-1].point == "stream"
    assert report.notes == ("The folder has no head: logits are not compared.",)


def test_the_page_has_a_column_for_every_layer_of_both_halves(pair):
    page = interop.compare(*pair("t5")).html()
    assert " ".join(re.findall(r'"middle">(\w+)<', page)) == "encoder in 0 1 out decoder in 0 1 2 out"
    assert page.count("<rect") == 2 + 2 + 3 + 2  # layers of both, what is before and behind them
    assert page.count("<circle") == 5 + 1
    assert "<td>encoder 1</td>" in page


# --- Causes ----------------------------------------------------------------------------------------------------------


def bert(layer):
    return lambda model: model.bert.encoder.layer[layer]


def bart(half, layer):
    return lambda model: getattr(model.model, half).layers[layer]


def t5(half, layer, part):
    return lambda model: getattr(model, half).block[layer].layer[part]


def seen(find, change, name="attention_mask"):
    return lambda model: planted.remasked(find(model), change, name)


TANH = torch.nn.GELU(approximate="tanh")
PADDING = "only rows with padding differ: their padding is seen, or positions begin elsewhere"
FAULTS = {
    "activation": (
        ("bert", lambda m: setattr(bert(1)(m).intermediate, "intermediate_act_fn", TANH)),
        ("", 1, "feed-forward", "activation", "theirs bends by the tanh form of GELU, ours by the exact GELU (erf)"),
    ),
    "activation of the head": (
        ("bert, two layers", lambda m: setattr(m.cls.predictions.transform, "transform_act_fn", TANH)),
        ("", None, "head", "activation", "theirs bends by the tanh form of GELU, ours by the exact GELU (erf)"),
    ),
    "kernel of the head": (
        ("bert", planted.transposed(lambda m: m.cls.predictions.transform.dense)),
        ("", None, "head", "transposed kernel", "the kernel of the transform is transposed on one side"),
    ),
    "scale of a norm behind the sum": (
        ("bert, two layers", planted.plus(lambda m: bert(1)(m).attention.output.LayerNorm, 1.0)),
        ("", 1, "attention norm", "norm scale", "theirs multiplies by scale + 1 of the norm, ours by the scale"),
    ),
    "kernel inside of what holds the norm too": (
        ("bert", planted.transposed(lambda m: bert(1)(m).attention.output.dense)),
        ("", 1, "attention", "transposed kernel", "the kernel of out is transposed on one side"),
    ),
    "future hidden": (
        ("distilbert", seen(lambda m: m.distilbert.transformer.layer[1].attention, planted.causal)),
        ("", 1, "attention", "mask", "theirs is causal, ours lets every token see the future"),
    ),
    "itself hidden": (
        ("bart", seen(lambda m: bart("encoder", 1)(m).self_attn, planted.without_itself)),
        ("encoder", 1, "attention", "mask", "theirs hides a token from itself, ours lets every token see the future"),
    ),
    "epsilon": (
        ("bart", lambda m: setattr(bart("encoder", 1)(m).final_layer_norm, "eps", 1e-12)),
        ("encoder", 1, "feed-forward norm", "norm epsilon", "is 1e-12 in theirs, 1e-05 in ours"),
    ),
    "epsilon behind cross-attention": (
        ("bart", lambda m: setattr(bart("decoder", 2)(m).encoder_attn_layer_norm, "eps", 1e-6)),
        ("decoder", 2, "cross-attention norm", "norm epsilon", "is 1e-06 in theirs, 1e-05 in ours"),
    ),
    "kernel of cross-attention": (
        ("bart", planted.transposed(lambda m: bart("decoder", 1)(m).encoder_attn.k_proj)),
        ("decoder", 1, "cross-attention", "transposed kernel", "the kernel of key is transposed on one side"),
    ),
    "padding of the source seen": (
        ("bart", seen(lambda m: bart("decoder", 2)(m).encoder_attn, torch.zeros_like)),
        ("decoder", 2, "cross-attention", "padding", PADDING),
    ),
    "padding of the source seen by T5": (
        ("t5", seen(lambda m: t5("decoder", 1, 1)(m).EncDecAttention, torch.zeros_like, "mask")),
        ("decoder", 1, "cross-attention", "padding", PADDING),
    ),
    "padding seen in the encoder": (
        ("bart", seen(lambda m: bart("encoder", 1)(m).self_attn, torch.zeros_like)),
        ("encoder", 1, "attention", "padding", PADDING),
    ),
    "future seen": (
        ("bart", seen(lambda m: bart("decoder", 1)(m).self_attn, torch.zeros_like)),
        ("decoder", 1, "attention", "mask", "theirs lets every token see the future, ours is causal"),
    ),
    "future seen beside a table of positions": (
        ("t5", seen(lambda m: t5("decoder", 2, 0)(m).SelfAttention, torch.zeros_like, "mask")),
        ("decoder", 2, "attention", "mask", "theirs lets every token see the future, ours is causal"),
    ),
    "scores": (
        ("t5", lambda m: setattr(t5("encoder", 1, 0)(m).SelfAttention, "scaling", 6**-0.5)),
        ("encoder", 1, "attention", "score scale", "theirs scales scores by 1 / sqrt(H), ours by 1"),
    ),
    "scores of cross-attention": (
        ("t5", lambda m: setattr(t5("decoder", 1, 1)(m).EncDecAttention, "scaling", 6**-0.5)),
        ("decoder", 1, "cross-attention", "score scale", "theirs scales scores by 1 / sqrt(H), ours by 1"),
    ),
    "logits": (
        ("t5", lambda m: setattr(m.config, "scale_decoder_outputs", False)),
        ("decoder", None, "head", "logit scale", "theirs multiplies what the head reads by 1, ours by 1 / sqrt(D)"),
    ),
    "embedding of the target": (
        (TWO, lambda m: setattr(m.model.decoder, "embed_scale", hf_models.D**0.5)),
        ("decoder", None, "embedding", "embedding scale", "theirs takes embeddings times sqrt(D), ours as they are"),
    ),
    "TF32": (
        ("bart", lambda m: planted.narrow(m, 10)),
        ("encoder", 0, "attention", "TF32", "every layer differs as if the products of one side were made in TF32"),
    ),
    "noise in a type of tokens": (
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
QUICK = ("activation of the head", "scale of a norm behind the sum")
QUICK += ("padding of the source seen by T5", "scores of cross-attention", "logits")
"""One encoder and one pair, and what only they have; test_report_causes.py shows the other hypotheses."""


@pytest.mark.parametrize("fault", slow_except(QUICK, FAULTS))
def test_a_fault_is_found_in_its_half_and_layer(pair, fault):
    (name, plant), (half, layer, point, cause, sentence) = FAULTS[fault]
    theirs, ours = pair(name)
    report = interop.compare(planted.in_theirs(theirs, plant), ours)
    assert (report.suspect.half, report.suspect.layer, report.suspect.point) == (half, layer, point)
    assert (report.cause.name if report.cause else None) == cause
    assert report.verdict.endswith(sentence)
    place = " ".join(word for word in (half, "" if layer is None else f"layer {layer}") if word)
    assert report.verdict.startswith("suspicious from " + (f"{place}, " if place else "") + f"{point}: ")
    if cause != "TF32":
        local = {(row.half, row.layer, row.point) for row in report.rows if not row.equal} - {(half, layer, "block")}
        assert {place for place in local if place[2] not in ("stream", "logits")} == {(half, layer, point)}


@pytest.mark.slow
def test_padding_of_the_source_alone_is_told_from_other_faults(pair):
    theirs, ours = pair("bart")
    plant = seen(lambda m: bart("decoder", 1)(m).encoder_attn, torch.zeros_like)
    target = np.random.default_rng(1).integers(0, hf_models.V, (2, 16))
    report = interop.compare(planted.in_theirs(theirs, plant), ours, tokens=target)
    assert (report.suspect.place, report.cause) == ("decoder 1", interop.Diagnosis("padding", PADDING))


def test_the_cause_that_only_pairs_have_is_planted():
    assert "logit scale" in {tried.name for tried in HYPOTHESES}
    assert "logit scale" in {expected[3] for _, expected in FAULTS.values()}


# --- Wrong calls -----------------------------------------------------------------------------------------------------


def test_wrong_calls_are_refused(pair):
    theirs, ours = pair("t5")
    with pytest.raises(ValueError, match="source: expected ids below vocab_size = 37, got 37"):
        interop.compare(theirs, ours, source=np.array([37]))
    with pytest.raises(ValueError, match=r"source: expected as many rows as the target has, got \[1, 3\]"):
        interop.compare(theirs, ours, source=np.array([1]), tokens=np.ones((3, 2), int))
    with pytest.raises(ValueError, match="source: expected tokens for a model in memory, got text"):
        interop.compare(theirs, ours, source="abc")
    with pytest.raises(
        TypeError, match="ours: expected a model of EncoderDecoderConfig, as theirs, got one of LMConfig"
    ):
        interop.compare(theirs, ours.decoder)
    with pytest.raises(TypeError, match="language-model head, T5ForConditionalGeneration, got T5EncoderModel"):
        interop.compare(transformers.T5EncoderModel(theirs.config))
    sizes = transformers.T5Config(**hf_models.T5 | {"num_layers": 1, "num_decoder_layers": 2})
    small = transformers.T5ForConditionalGeneration(sizes)
    with pytest.raises(ValueError, match=r"sizes of theirs, encoder.depth = 1, got 2; decoder.depth = 2, got 3"):
        interop.compare(small, ours)
