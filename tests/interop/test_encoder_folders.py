"""Folders of encoders and pairs as they lie about: bare models, other heads, copies, old names, old formats."""

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
from tests.interop import hf_models, parity_of
from tests.interop.test_model_folders import change, rewrite, same_numbers
from tests.models import small
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD


def saved(theirs, folder):
    theirs.save_pretrained(folder)
    return folder


TWO = "marian, two vocabularies"


@pytest.fixture(scope="module")
def built():
    """Their models, each made once; tests only read them."""
    made = {}
    return lambda name: made.setdefault(name, hf_models.build(name))


# --- Heads that are not ours -----------------------------------------------------------------------------------------


def test_pooler_and_next_sentence_are_not_read(tmp_path):
    """What bert-base-uncased holds: the heads of both tasks of its training."""
    config = transformers.BertConfig(**hf_models.BERT | {"num_hidden_layers": 1})
    theirs = transformers.BertForPreTraining(config).eval()
    ours = interop.load(saved(theirs, tmp_path))
    tokens = hf_models.tokens()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).prediction_logits.numpy()
    assert parity_of.relative(parity_of.logits_of_tokens(ours, tokens), expected) <= FORWARD["float32"]


@pytest.mark.parametrize("name", ["bert", *slow("roberta", "distilbert")])
def test_bare_encoders_give_hidden_states(built, tmp_path, name):
    whole = built(name)
    bare = getattr(whole, whole.base_model_prefix)
    ours = interop.load(saved(bare, tmp_path))
    assert (ours.config.head_transform, ours.head_bias) == (False, None)
    tokens = hf_models.tokens()
    with torch.no_grad():
        expected = bare(torch.from_numpy(tokens)).last_hidden_state.numpy()
    found = jax.jit(lambda model: model.hidden(tokens)[0])(ours)
    assert parity_of.relative(found, expected) <= FORWARD["float32"]
    with pytest.raises(ValueError, match=r"fields that \w+ cannot say: head_transform"):
        interop.save(ours, tmp_path / "again")


def test_a_head_of_another_task_is_refused(tmp_path):
    theirs = transformers.BertForSequenceClassification(transformers.BertConfig(**hf_models.BERT))
    said = r"a BertForSequenceClassification by its config where we read BertForMaskedLM, got missing: cls\.predictions"
    with pytest.raises(ValueError, match=said + r"\.bias, .*unused: classifier\.bias, classifier"):
        interop.load(saved(theirs, tmp_path))


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_bare_pairs_have_their_tied_head(built, tmp_path, name):
    """Of BART without its bias, which then is zero."""
    whole = built(name)
    bare = getattr(transformers, type(whole).__name__.replace("ForConditionalGeneration", "Model"))(whole.config)
    bare.load_state_dict({key.removeprefix("model."): x for key, x in whole.state_dict().items()}, strict=False)
    ours, expected = interop.load(saved(bare, tmp_path / "bare")), interop.load(saved(whole, tmp_path / "whole"))
    if name == "bart":
        assert not np.any(ours.decoder.head_bias[...])
        ours.decoder.head_bias = expected.decoder.head_bias
    assert same_numbers(ours, expected)


# --- Copies and names of old -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", *slow("roberta", "distilbert"), "t5", *slow("bart", "marian", TWO)])
def test_everything_that_a_state_dict_holds(built, tmp_path, name):
    """Files of old hold tied arrays under each of their names; then the first of them may be missing as well."""
    theirs = built(name)
    expected = interop.load(saved(theirs, tmp_path))
    whole = {key: x.numpy() for key, x in theirs.state_dict().items()}
    copies = parity_of.family_of(theirs).copies
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


def test_a_t5_whose_file_holds_another_head(built, tmp_path):
    """Flan-T5: its config says that the head is tied, or that it is not; the file has the last word, as in theirs."""
    folder = saved(built("t5 1.1, three layers"), tmp_path)
    head = np.float32(np.random.default_rng(0).standard_normal((hf_models.V, hf_models.D)))
    rewrite(folder, lambda x: x | {"lm_head.weight": head})
    for fields in ({}, {"tie_word_embeddings": False, "scale_decoder_outputs": None}):
        change(folder, **fields)
        theirs = transformers.T5ForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()
        ours = interop.load(folder)
        assert not ours.config.decoder.tied_head
        assert parity_of.forward(theirs, ours) <= FORWARD["float32"]
        again = folder / f"again{len(fields)}"
        interop.save(ours, again)
        same = transformers.T5ForConditionalGeneration.from_pretrained(again, attn_implementation="eager").eval()
        setting = parity_of.setting_of(theirs)
        with torch.no_grad():
            assert torch.equal(setting.theirs(same), setting.theirs(theirs))


def test_norms_of_old_are_called_gamma_and_beta(built, tmp_path):
    folder = saved(built("bert"), tmp_path)
    expected = interop.load(folder)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def renamed(name):
        return next((name.replace(new, past) for new, past in old.items() if name.endswith(new)), name)

    rewrite(folder, lambda x: {renamed(name): y for name, y in x.items()})
    assert any(name.endswith("gamma") for name in load_file(folder / "model.safetensors"))
    assert same_numbers(interop.load(folder), expected)


def test_flax_file_of_bert(built, tmp_path):
    """`flax_model.msgpack` as FlaxBertForMaskedLM saved it: kernels turned, norms scaled, tables embedded."""
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
    theirs = hf_models.build(name, torch.bfloat16)
    ours = interop.load(saved(theirs, tmp_path / "a"), scan=True)
    config = ours.config if name == "roberta" else ours.config.decoder
    assert (config.param_dtype, config.dtype, config.scan) == ("bfloat16", "bfloat16", True)
    interop.save(ours, tmp_path / "b", family=name)
    first, second = (load_file(tmp_path / x / "model.safetensors") for x in "ab")
    assert first.keys() == second.keys()
    skipped = {"roberta.embeddings.position_embeddings.weight"} | {
        f"model.{half}.embed_positions.weight" for half in ("encoder", "decoder")
    }
    for key in first.keys() - skipped:
        assert np.array_equal(first[key].view(np.uint16), second[key].view(np.uint16)), key
    for key in first.keys() & skipped:
        assert np.array_equal(first[key][2:].view(np.uint16), second[key][2:].view(np.uint16)), key
    wide = interop.load(tmp_path / "b", dtype="float32", param_dtype="float32")
    assert parity_of.forward(theirs.float(), wide) <= FORWARD["float32"]


BAD_FIELDS = {
    "relative positions": ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
    "a decoder": ("bert", {"is_decoder": True}, "is_decoder"),
    "another padding": ("roberta", {"pad_token_id": 0}, "pad_token_id"),
    "another function": ("roberta", {"hidden_act": "relu"}, "hidden_act"),
    "other buckets": ("t5", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets"),
    "one half": ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder"),
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
    ours = interop.load(saved(built("roberta"), tmp_path / "a"))
    with pytest.raises(ValueError, match=r"fields: expected only what does not change the logits, got pad_token_id\."):
        interop.save(ours, tmp_path / "b", family="roberta", fields={"pad_token_id": 0})
    interop.save(ours, tmp_path / "b", family="roberta", fields={"pad_token_id": 1, "eos_token_id": 2})
    assert json.loads((tmp_path / "b" / "config.json").read_text())["eos_token_id"] == 2


def test_pairs_that_no_family_has(tmp_path):
    encoder = small.config("rotary", mask=None)
    decoder = small.config("learned", memory_size=16)
    model = small.filled(lambda: models.create(models.EncoderDecoderConfig(encoder=encoder, decoder=decoder)))
    with pytest.raises(ValueError, match=r"expected a model that some family of Hugging Face computes, got fields"):
        interop.save(model, tmp_path)
    with pytest.raises(ValueError, match=r"expected a model that llama of Hugging Face computes"):
        interop.save(model, tmp_path, family="llama")


@pytest.mark.parametrize("name", ["bert, untied, ReLU, three types", *slow("roberta, untied")])
def test_an_untied_head_writes_its_bias_under_both_names(built, tmp_path, name):
    """Older versions of transformers read the one that version 5 does not."""
    ours = interop.load(saved(built(name), tmp_path / "a"))
    family = interop.save(ours, tmp_path / "b", family=name.split(",")[0])
    matrix, bias = {"bert": ("cls.predictions.decoder", "cls.predictions.bias")}.get(
        family, ("lm_head.decoder", "lm_head.bias")
    )
    stored = load_file(tmp_path / "b" / "model.safetensors")
    np.testing.assert_array_equal(stored[f"{matrix}.bias"], ours.head_bias[...])
    np.testing.assert_array_equal(stored[bias], ours.head_bias[...])


def test_damaged_files_say_what_to_do(built, tmp_path):
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


def test_float64_is_not_narrowed_without_a_word(tmp_path):
    folder = saved(hf_models.build("distilbert", torch.float64), tmp_path)
    with pytest.raises(ValueError, match=r"param_dtype: expected x64 mode for the float64 arrays of this folder"):
        interop.load(folder)
    assert interop.load(folder, param_dtype="float32").config.dtype == "float32"
