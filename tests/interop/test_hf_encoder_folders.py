"""Folders of encoders and encoder-decoders as published: bare models, other heads, copies, old names, old formats."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import serialization
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from jax_attention import interop, models
from tests.interop.test_hf_folders import change, rewrite, same_numbers
from tests.models import small
from tests.support import hf_models, hf_parity
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD


def saved(hf_model, folder):
    hf_model.save_pretrained(folder)
    return folder


TWO = "marian, two vocabularies"


@pytest.fixture(scope="module")
def built():
    """A function that makes the model of a case once. Tests share the models and do not change them."""
    models = {}
    return lambda name: models.setdefault(name, hf_models.build(name))


# --- Heads of other tasks --------------------------------------------------------------------------------------------


def test_pooler_and_next_sentence_are_not_read(tmp_path):
    """The file of bert-base-uncased has the heads of both tasks that it was trained on."""
    config = transformers.BertConfig(**hf_models.BERT | {"num_hidden_layers": 1})
    hf_model = transformers.BertForPreTraining(config).eval()
    jax_model = interop.load(saved(hf_model, tmp_path))
    tokens = hf_models.tokens()
    with torch.no_grad():
        expected = hf_model(torch.from_numpy(tokens)).prediction_logits.numpy()
    assert hf_parity.relative(hf_parity.logits_of_tokens(jax_model, tokens), expected) <= FORWARD["float32"]


@pytest.mark.parametrize("name", ["bert", *slow("roberta", "distilbert")])
def test_bare_encoders_give_hidden_states(built, tmp_path, name):
    whole = built(name)
    bare = getattr(whole, whole.base_model_prefix)
    jax_model = interop.load(saved(bare, tmp_path))
    assert (jax_model.config.head_transform, jax_model.head_bias) == (False, None)
    tokens = hf_models.tokens()
    with torch.no_grad():
        expected = bare(torch.from_numpy(tokens)).last_hidden_state.numpy()
    hidden = jax.jit(lambda model: model.hidden(tokens)[0])(jax_model)
    assert hf_parity.relative(hidden, expected) <= FORWARD["float32"]
    with pytest.raises(ValueError, match=r"fields that \w+ cannot express: head_transform"):
        interop.save(jax_model, tmp_path / "again")


def test_a_head_of_another_task_is_refused(tmp_path):
    hf_model = transformers.BertForSequenceClassification(transformers.BertConfig(**hf_models.BERT))
    message = r"expected a BertForMaskedLM or a model without a head, got BertForSequenceClassification, whose head for"
    with pytest.raises(ValueError, match=message):
        interop.load(saved(hf_model, tmp_path))


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_bare_encoder_decoders_have_the_tied_head(built, tmp_path, name):
    """The bias of BART's head is zero then."""
    whole = built(name)
    bare = getattr(transformers, type(whole).__name__.replace("ForConditionalGeneration", "Model"))(whole.config)
    bare.load_state_dict({key.removeprefix("model."): x for key, x in whole.state_dict().items()}, strict=False)
    jax_model, expected = interop.load(saved(bare, tmp_path / "bare")), interop.load(saved(whole, tmp_path / "whole"))
    if name == "bart":
        assert not np.any(jax_model.decoder.head_bias[...])
        jax_model.decoder.head_bias = expected.decoder.head_bias
    assert same_numbers(jax_model, expected)


# --- Copies and old names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", *slow("roberta", "distilbert"), "t5", *slow("bart", "marian", TWO)])
def test_every_array_of_a_state_dict_may_be_stored(built, tmp_path, name):
    """Old files have tied arrays under each of their names; then the first of them may also be missing."""
    hf_model = built(name)
    expected = interop.load(saved(hf_model, tmp_path))
    whole = {key: x.numpy() for key, x in hf_model.state_dict().items()}
    copies = hf_parity.family_of(hf_model).copies
    assert copies(expected.config).keys() <= whole.keys()
    rewrite(tmp_path, lambda x: whole)
    assert same_numbers(interop.load(tmp_path), expected)
    if name in ("t5", "bart", "marian"):
        source = next(iter(copies(expected.config).values()))
        rewrite(tmp_path, lambda x: {key: y for key, y in x.items() if key != source})
        assert same_numbers(interop.load(tmp_path), expected)


@pytest.mark.parametrize("name", ["bert", "bart", "marian"])
def test_copies_that_differ_are_refused(built, tmp_path, name):
    folder = saved(built(name), tmp_path)
    wrong = {"bert": "cls.predictions.decoder.weight"}.get(name, "model.encoder.embed_tokens.weight")
    rewrite(folder, lambda x: x | {wrong: np.ones((hf_models.V, hf_models.D), np.float32)})
    with pytest.raises(ValueError, match=rf"path: expected {wrong} to equal .*, as tie_word_embeddings says"):
        interop.load(folder)


def test_a_t5_whose_file_has_another_head(built, tmp_path):
    """Flan-T5: the config says that the head is tied, or that it is not; the file decides, as in transformers."""
    folder = saved(built("t5 1.1, three layers"), tmp_path)
    head = np.float32(np.random.default_rng(0).standard_normal((hf_models.V, hf_models.D)))
    rewrite(folder, lambda x: x | {"lm_head.weight": head})
    for fields in ({}, {"tie_word_embeddings": False, "scale_decoder_outputs": None}):
        change(folder, **fields)
        hf_model = transformers.T5ForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()
        jax_model = interop.load(folder)
        assert not jax_model.config.decoder.tied_head
        assert hf_parity.forward(hf_model, jax_model) <= FORWARD["float32"]
        again = folder / f"again{len(fields)}"
        interop.save(jax_model, again)
        same = transformers.T5ForConditionalGeneration.from_pretrained(again, attn_implementation="eager").eval()
        setting = hf_parity.setting_of(hf_model)
        with torch.no_grad():
            assert torch.equal(setting.run_hf(same), setting.run_hf(hf_model))


def test_old_names_of_norms_are_gamma_and_beta(built, tmp_path):
    folder = saved(built("bert"), tmp_path)
    expected = interop.load(folder)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def rename(name):
        return next((name.replace(new, past) for new, past in old.items() if name.endswith(new)), name)

    rewrite(folder, lambda x: {rename(name): y for name, y in x.items()})
    assert any(name.endswith("gamma") for name in load_file(folder / "model.safetensors"))
    assert same_numbers(interop.load(folder), expected)


def test_flax_file_of_bert(built, tmp_path):
    """`flax_model.msgpack` as FlaxBertForMaskedLM saved it: transposed `kernel`s, norms with `scale`, tables
    `embedding`.
    """
    folder = saved(built("bert"), tmp_path)
    expected, nested = interop.load(folder), {}
    for name, x in load_file(folder / "model.safetensors").items():
        *path, leaf = name.split(".")
        if leaf == "weight":
            leaf = "scale" if "LayerNorm" in path else "embedding" if "embeddings" in path else "kernel"
        nested[(*path, leaf)] = x.T.copy() if leaf == "kernel" else x
    (folder / "model.safetensors").unlink()
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(unflatten_dict(nested)))
    assert same_numbers(interop.load(folder), expected)


# --- Precision, layout, refusal --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta", "bart"])
def test_half_precision_and_stacked_blocks(built, tmp_path, name):
    hf_model = hf_models.build(name, torch.bfloat16)
    jax_model = interop.load(saved(hf_model, tmp_path / "a"), scan=True)
    config = jax_model.config if name == "roberta" else jax_model.config.decoder
    assert (config.param_dtype, config.dtype, config.scan) == ("bfloat16", "bfloat16", True)
    interop.save(jax_model, tmp_path / "b", family=name)
    first, second = (load_file(tmp_path / x / "model.safetensors") for x in "ab")
    assert first.keys() == second.keys()
    skipped = {"roberta.embeddings.position_embeddings.weight"} | {
        f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")
    }
    for key in first.keys() - skipped:
        assert np.array_equal(first[key].view(np.uint16), second[key].view(np.uint16)), key
    for key in first.keys() & skipped:
        assert np.array_equal(first[key][2:].view(np.uint16), second[key][2:].view(np.uint16)), key
    wide = interop.load(tmp_path / "b", dtype="float32", param_dtype="float32")
    assert hf_parity.forward(hf_model.float(), wide) <= FORWARD["float32"]


BAD_FIELDS = {
    "relative positions": ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
    "a decoder": ("bert", {"is_decoder": True}, "is_decoder"),
    "another padding": ("roberta", {"pad_token_id": 0}, "pad_token_id"),
    "another function": ("roberta", {"hidden_act": "relu"}, "hidden_act"),
    "too few buckets": ("t5", {"relative_attention_num_buckets": 3}, "t5_buckets: expected from 4 to less than"),
    "one stack": ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder"),
    "norms before": ("bart", {"normalize_before": True}, "normalize_before"),
    "learned positions": ("marian", {"static_position_embeddings": False}, "static_position_embeddings"),
    "something new": ("bart", {"rope_theta": 3.0}, "got also rope_theta = 3.0"),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_fields_that_would_change_the_model_are_refused(built, tmp_path, name):
    case, fields, message = BAD_FIELDS[name]
    change(saved(built(case), tmp_path), **fields)
    with pytest.raises(ValueError, match=message):
        interop.load(tmp_path)


def test_published_fields_are_read(built, tmp_path):
    """Fields of the configs of bert-base-multilingual, bart-large, opus-mt and t5-small that change nothing."""
    published = {
        "bert": {"directionality": "bidi", "pooler_fc_size": 768, "pooler_type": "first_token_transform"},
        "distilbert": {"sinusoidal_pos_embds": False, "tie_weights_": True, "qa_dropout": 0.1},
        "bart": {"add_bias_logits": False, "normalize_embedding": True, "extra_pos_embeddings": 2, "num_beams": 4}
        | {"_num_labels": 3, "output_past": True, "force_bos_token_to_be_generated": True},
        "marian": {"bad_words_ids": [[0]], "num_hidden_layers": 6, "normalize_embedding": False, "max_length": 512}
        | {"_num_labels": 3},
        "t5": {"output_past": True, "n_positions": 512, "task_specific_params": {"summarization": {}}},
    }
    for name, fields in published.items():
        folder = saved(built(name), tmp_path / name)
        plain = interop.load(folder)
        change(folder, **fields)
        assert interop.load(folder).config == plain.config


def test_added_fields_must_not_change_the_model(built, tmp_path):
    jax_model = interop.load(saved(built("roberta"), tmp_path / "a"))
    with pytest.raises(ValueError, match=r"fields: expected only what does not change the logits, got pad_token_id\."):
        interop.save(jax_model, tmp_path / "b", family="roberta", fields={"pad_token_id": 0})
    interop.save(jax_model, tmp_path / "b", family="roberta", fields={"pad_token_id": 1, "eos_token_id": 2})
    assert json.loads((tmp_path / "b" / "config.json").read_text())["eos_token_id"] == 2


def test_encoder_decoders_that_no_family_expresses(tmp_path):
    encoder = small.config("rotary", mask=None)
    decoder = small.config("learned", memory_size=16)
    model = small.filled(lambda: models.create(models.EncoderDecoderConfig(encoder=encoder, decoder=decoder)))
    with pytest.raises(ValueError, match=r"expected a model that some family of Hugging Face computes, got fields"):
        interop.save(model, tmp_path)
    with pytest.raises(ValueError, match=r"expected a model that llama of Hugging Face computes"):
        interop.save(model, tmp_path, family="llama")


@pytest.mark.parametrize("name", ["bert, untied, ReLU, three types", *slow("roberta, untied")])
def test_an_untied_head_writes_its_bias_under_both_names(built, tmp_path, name):
    """Older versions of transformers read the name that version 5 ignores."""
    jax_model = interop.load(saved(built(name), tmp_path / "a"))
    family = interop.save(jax_model, tmp_path / "b", family=name.split(",")[0])
    matrix, bias = {"bert": ("cls.predictions.decoder", "cls.predictions.bias")}.get(
        family, ("lm_head.decoder", "lm_head.bias")
    )
    stored = load_file(tmp_path / "b" / "model.safetensors")
    np.testing.assert_array_equal(stored[f"{matrix}.bias"], jax_model.head_bias[...])
    np.testing.assert_array_equal(stored[bias], jax_model.head_bias[...])


def test_errors_of_damaged_files_name_the_cure(built, tmp_path):
    folder = saved(built("bert"), tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"path: expected safetensors in .*, got a file without \(.*Download it again"):
        interop.load(folder)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match=r"It is a pointer of git-lfs: run git lfs pull\."):
        interop.load(folder)
    path.unlink()
    (folder / "flax_model.msgpack").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"path: expected an undamaged flax_model.msgpack"):
        interop.load(folder)


def test_float64_is_not_narrowed_silently(tmp_path):
    folder = saved(hf_models.build("distilbert", torch.float64), tmp_path)
    with pytest.raises(ValueError, match=r"param_dtype: expected x64 mode for the float64 arrays of this folder"):
        interop.load(folder)
    assert interop.load(folder, param_dtype="float32").config.dtype == "float32"
