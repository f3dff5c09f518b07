"""Folders as other tools write them: neutral fields in the config, weights of wrapped models, heads of other tasks.

unsloth#8126: `unsloth_version` in config.json makes strict readers refuse the folder.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from jax_attention import interop, models
from jax_attention.core.tree_paths import arrays_by_path
from jax_attention.interop.hf.config import config_from_fields, family_of
from tests.models import small
from tests.support import hf_models
from tests.support.tiers import slow_except

CASES = hf_models.CASES | hf_models.ENCODERS | hf_models.ENCODER_DECODERS
FAMILIES = {kind: name for name, (kind, _) in CASES.items()}
LLAMA = models.llama(vocab_size=19, context=16, width=8, depth=1, num_heads=2, kv_heads=1, ff_size=10, scan=False)

# --- Fields ----------------------------------------------------------------------------------------------------------

OLD = {
    **{"add_cross_attention": False, "cross_attention_hidden_size": None, "is_decoder": False, "pruned_heads": {}},
    **{"tie_encoder_decoder": False, "torchscript": False, "tf_legacy_loss": False, "use_bfloat16": False},
    **{"xla_device": None, "sep_token_id": None, "chunk_size_feed_forward": 0, "return_dict": True},
    **{"output_scores": False, "return_dict_in_generate": False, "remove_invalid_values": False, "typical_p": 1.0},
    **{"encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": None, "suppress_tokens": None},
    **{"begin_suppress_tokens": [220, 50256], "num_beam_groups": 1, "diversity_penalty": 0.0, "max_new_tokens": 20},
}
"""What transformers 2 to 4 wrote into every config."""
TOOLS = {
    **{"unsloth_version": "2025.3.19", "unsloth_fixed": True, "_flash_attn_2_enabled": True, "use_flash_attn": True},
    **{"_attn_implementation": "sdpa", "attn_implementation": "eager", "tokenizer_padding_side": "left"},
    **{"quantization_config": None, "model_max_length": 2048, "custom_pipelines": {}, "trust_remote_code": True},
    **{"transformers.js_config": {"dtype": "q4"}, "neftune_noise_alpha": 5.0, "_commit_hash": "0" * 40},
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_fields_that_say_nothing_about_the_model_are_read(kind):
    """Every family, with all fields that transformers has now, those that it had, and those of other tools."""
    _, fields = CASES[FAMILIES[kind]]
    config = getattr(transformers, f"{'Gemma3Text' if kind == 'Gemma3' else kind}Config")(**fields)
    plain, whole = (json.loads(json.dumps(x, default=str)) for x in (config.to_diff_dict(), config.to_dict()))
    family = family_of(plain)
    expected = config_from_fields(family, plain)
    assert config_from_fields(family, whole) == expected
    assert config_from_fields(family, OLD | TOOLS | plain) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pruned_heads", {"0": [1]}),
        ("tie_encoder_decoder", True),
        ("add_cross_attention", True),
        ("cross_attention_hidden_size", 12),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
    ],
)
def test_values_that_would_change_numbers_are_refused_by_name(folder, name, value):
    change(folder, **{name: value})
    with pytest.raises(
        ValueError, match=rf"config.json: expected {name} = .*, which is all that this library has, got"
    ):
        interop.load(folder)


@pytest.fixture
def folder(tmp_path):
    """A small llama as a folder."""
    interop.save(small.filled(lambda: models.create(LLAMA)), tmp_path / "model")
    return tmp_path / "model"


def change(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def same_numbers(a, b) -> bool:
    a, b = arrays_by_path(a), arrays_by_path(b)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_an_unknown_field_is_read_past_if_the_caller_says_so(folder):
    model = interop.load(folder)
    change(folder, loss_kind="dpo", quantization_config={"bits": 4})
    with pytest.raises(ValueError, match=r"got also loss_kind = 'dpo'.* or name them in ignore_fields\."):
        interop.load(folder, ignore_fields=["quantization_config"])
    again = interop.load(folder, ignore_fields=("loss_kind", "quantization_config"))
    assert again.config == model.config
    assert same_numbers(again, model)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("loss_kind", r"ignore_fields: expected names of fields, got 'loss_kind'\. One is \(name,\)\."),
        (3, r"ignore_fields: expected names of fields, got 3"),
        ((3,), r"ignore_fields: expected names of fields, got \(3,\)"),
        (("loss_knid",), r"ignore_fields: expected fields that config.json has, got loss_knid\."),
    ],
)
def test_fields_to_ignore_are_checked(folder, names, message):
    with pytest.raises((ValueError, TypeError), match=message):
        interop.load(folder, ignore_fields=names)


# --- Names of weights ------------------------------------------------------------------------------------------------

PREFIXES = (
    "module.",
    "_orig_mod.",
    "base_model.",
    "base_model.model.",
    "_orig_mod.module.",
    "module.base_model.model.",
)


def rename(folder, name_of):
    path = folder / "model.safetensors"
    save_file({name_of(name): x for name, x in load_file(path).items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("case", slow_except(("qwen3", "gpt2"), ("gpt2", "llama 2", "qwen3", "t5", "bart", "bert")))
def test_names_of_wrapped_models_are_recognised(case, tmp_path):
    """nanoGPT saves compiled models, data parallelism adds `module.`, PEFT `base_model.model.`."""
    hf_models.build(case).save_pretrained(tmp_path)
    model, wrapped = interop.load(tmp_path), ""
    for prefix in PREFIXES:
        rename(tmp_path, lambda name, prefix=prefix, wrapped=wrapped: prefix + name.removeprefix(wrapped))
        assert same_numbers(interop.load(tmp_path), model), prefix
        wrapped = prefix


def test_layers_that_are_compiled_one_by_one_are_recognised(folder):
    model = interop.load(folder)
    rename(folder, lambda name: name.replace("layers.0.", "layers.0._orig_mod."))
    assert same_numbers(interop.load(folder), model)


def test_an_array_inside_and_outside_of_a_wrapper_is_refused(folder):
    path = folder / "model.safetensors"
    arrays = load_file(path)
    save_file(arrays | {"module.model.norm.weight": arrays["model.norm.weight"] + 1}, path)
    with pytest.raises(ValueError, match=r"path: expected each array once, .* with and without wrappers: model.norm"):
        interop.load(folder)


def test_weights_that_transformers_does_not_find_are_not_compared(tmp_path):
    """transformers goes on with random numbers in their place, and the report would blame the model."""
    hf_models.build("gpt2, untied, exact GELU").save_pretrained(tmp_path)
    rename(tmp_path, lambda name: f"module.{name}")
    with pytest.raises(ValueError, match=r"hf_model: expected weights under the names of GPT2LMHeadModel, got others"):
        interop.compare(tmp_path)


# --- Heads of other tasks --------------------------------------------------------------------------------------------

HEADS = {
    "GPT2ForSequenceClassification": ("GPT2", hf_models.GPT2, "score.weight"),
    "LlamaForSequenceClassification": ("Llama", hf_models.PLAIN, "score.weight"),
    "BertForTokenClassification": ("Bert", hf_models.BERT, "classifier.bias, classifier.weight"),
    "RobertaForQuestionAnswering": ("Roberta", hf_models.BERT, "qa_outputs.bias, qa_outputs.weight"),
    "T5ForSequenceClassification": ("T5", hf_models.T5, "classification_head.dense.bias, .* and 2 more"),
    "T5ForTokenClassification": ("T5", hf_models.T5, "classifier.bias, classifier.weight"),
    "BartForSequenceClassification": ("Bart", hf_models.BART, "classification_head.dense.bias, .* and 2 more"),
}


@pytest.mark.parametrize("name", slow_except(("GPT2ForSequenceClassification", "T5ForTokenClassification"), HEADS))
def test_a_head_of_another_task_is_refused_in_one_sentence(name, tmp_path):
    kind, fields, head = HEADS[name]
    torch.manual_seed(0)
    getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**fields)).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=rf"got {name}, whose head for another task, {head}, this library does not"
    ) as e:
        interop.load(tmp_path)
    assert "missing" not in str(e.value)


def test_the_encoder_below_a_head_is_read(tmp_path):
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**hf_models.BERT))
    model.save_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"Save its encoder alone: model\.base_model\.save_pretrained\(FOLDER\)\."):
        interop.load(tmp_path / "whole")
    model.base_model.save_pretrained(tmp_path / "encoder")
    assert interop.load(tmp_path / "encoder").head_transform is None
