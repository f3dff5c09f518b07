"""Hugging Face folders of all kinds: shards, half precision, bare models, old configs; errors list what is wrong."""

from __future__ import annotations

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import serialization
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file, save_file

from jax_attention import interop, masks, models, normalizers
from jax_attention.core.tree_paths import arrays_by_path
from tests.models import small
from tests.support import hf_models, hf_parity
from tests.support.tolerances import FORWARD

LLAMA = models.llama(vocab_size=19, context=32, width=12, depth=2, num_heads=2, kv_heads=1, ff_size=10, scan=False)
TOKENS = jnp.asarray(hf_models.tokens() % 19)


def filled(config):
    """A model with random parameters, made without compiling its initialisation."""
    return small.filled(lambda: models.create(config))


@pytest.fixture
def folder(tmp_path):
    """A small llama as a folder."""
    interop.save(filled(LLAMA), tmp_path / "model")
    return tmp_path / "model"


def change(folder, **fields):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, x in fields.items():
        config.pop(name, None)
        config |= {} if x is None else {name: x}
    path.write_text(json.dumps(config))


def rewrite(folder, make):
    path = folder / "model.safetensors"
    save_file(make(load_file(path)), path)


def same_numbers(a, b) -> bool:
    a, b = arrays_by_path(a), arrays_by_path(b)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("scan", [False, True])
def test_round_trip_is_exact_in_either_layout(tmp_path, scan):
    model = filled(dataclasses.replace(LLAMA, scan=scan))
    assert interop.save(model, tmp_path / "a") == "llama"
    again = interop.load(tmp_path / "a", scan=scan)
    assert again.config.scan == scan
    assert same_numbers(model, again)


def test_dropout_rates_do_not_prevent_saving(tmp_path):
    """Llama has no field for one of the rates; a model that was trained with it can be saved all the same."""
    model = filled(dataclasses.replace(LLAMA, dropout=0.1, attention_dropout=0.2))
    assert interop.save(model, tmp_path) == "llama"
    again = interop.load(tmp_path)
    assert (again.config.dropout, again.config.attention_dropout) == (0.0, 0.2)
    assert same_numbers(model, again)


def test_shards_are_written_and_read(tmp_path, folder):
    model = interop.load(folder)
    interop.save(model, tmp_path / "parts", max_shard_bytes=2000)
    shards = sorted((tmp_path / "parts").glob("model-0*.safetensors"))
    assert len(shards) > 3
    for arrays in map(load_file, shards):
        size = sum(x.nbytes for x in arrays.values())
        assert size <= 2000 or len(arrays) == 1
    assert same_numbers(interop.load(tmp_path / "parts"), model)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=rf"every shard that .* names, got none of {shards[1].name}"):
        interop.load(tmp_path / "parts")


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.bfloat16, "bfloat16"), pytest.param(torch.float16, "float16", marks=pytest.mark.slow)]
)
def test_half_precision_is_kept_bit_for_bit(tmp_path, dtype, name):
    hf_model = hf_models.build("llama 3", dtype)
    hf_model.save_pretrained(tmp_path / "half")
    jax_model = interop.load(tmp_path / "half")
    assert (jax_model.config.dtype, jax_model.config.param_dtype) == (name, name)
    stored = hf_model.model.norm.weight.detach().view(torch.int16).numpy()
    np.testing.assert_array_equal(np.asarray(jax_model.final_norm.scale[...]).view(np.int16), stored)
    interop.save(jax_model, tmp_path / "again")
    assert same_numbers(interop.load(tmp_path / "again"), jax_model)
    wide = interop.load(tmp_path / "half", dtype="float32", param_dtype="float32")
    # Loaded again: `model.float()` would keep rotary frequencies that were rounded to half precision.
    widened = type(hf_model).from_pretrained(tmp_path / "half", dtype=torch.float32, attn_implementation="eager")
    assert hf_parity.forward(widened, wide) <= FORWARD["float32"]


def test_a_bare_model_without_its_prefix(tmp_path):
    hf_model = hf_models.build("gpt2")
    hf_model.transformer.save_pretrained(tmp_path / "bare")
    change(tmp_path / "bare", architectures=["GPT2Model"])
    hf_model.save_pretrained(tmp_path / "whole")
    assert same_numbers(interop.load(tmp_path / "bare"), interop.load(tmp_path / "whole"))


def test_buffers_of_old_files_are_left_out(folder):
    model = interop.load(folder)
    rewrite(folder, lambda x: x | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)})
    assert same_numbers(interop.load(folder), model)


def test_old_fields_give_the_same_config(tmp_path):
    """`rope_theta` and `rope_scaling` before `rope_parameters`, `rotary_pct` before `partial_rotary_factor`."""
    scaled = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    old = {"rope_theta": 500000.0, "rope_scaling": scaled | {"original_max_position_embeddings": 16}}
    for name, fields in (("llama 3", old), ("pythia", {"rotary_pct": 0.45, "rotary_emb_base": 10000})):
        hf_models.build(name).save_pretrained(tmp_path / name)
        new = interop.load(tmp_path / name).config
        change(tmp_path / name, rope_parameters=None, **fields)
        assert interop.load(tmp_path / name).config == new


def test_orphaned_flax_weights_of_gpt2(tmp_path):
    """transformers#38758: transformers no longer reads them. Written here as its Flax GPT-2 wrote them."""
    hf_models.build("gpt2").save_pretrained(tmp_path)
    model, weights, nested = interop.load(tmp_path), load_file(tmp_path / "model.safetensors"), {}
    for name, x in weights.items():
        *path, leaf = name.split(".")
        if leaf == "weight":
            leaf = "embedding" if path[-1] in ("wte", "wpe") else "scale" if "ln" in path[-1] else "kernel"
        nested[(*path, leaf)] = x.T.copy() if leaf == "kernel" else x
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(unflatten_dict(nested)))
    assert same_numbers(interop.load(tmp_path), model)


def test_pickles_only_if_allowed(tmp_path, folder):
    model, weights = interop.load(folder), load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({name: torch.from_numpy(x) for name, x in weights.items()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"expected safetensors, got pickled weights .* pass allow_pickle=True"):
        interop.load(folder)
    assert same_numbers(interop.load(folder, allow_pickle=True), model)


def test_a_tied_head_that_is_stored_too(tmp_path):
    interop.save(filled(dataclasses.replace(LLAMA, tied_head=True)), tmp_path)
    rewrite(tmp_path, lambda x: x | {"lm_head.weight": x["model.embed_tokens.weight"]})
    assert interop.load(tmp_path).head is None
    rewrite(tmp_path, lambda x: x | {"lm_head.weight": x["lm_head.weight"] + 1})
    with pytest.raises(ValueError, match=r"expected lm_head.weight to equal model.embed_tokens.weight"):
        interop.load(tmp_path)


def test_missing_unused_and_misshapen_arrays_are_listed(folder):
    def spoil(x):
        x["model.layers.0.self_attn.banana"] = x.pop("model.layers.1.mlp.up_proj.weight")
        return x

    rewrite(folder, spoil)
    with pytest.raises(ValueError, match=r"missing: model\.layers\.1\.mlp\.up_proj\.weight; unused: .*banana"):
        interop.load(folder)
    rewrite(
        folder,
        lambda x: (
            {name: y for name, y in x.items() if "banana" not in name}
            | {"model.layers.1.mlp.up_proj.weight": np.zeros((3, 12), np.float32)}
        ),
    )
    with pytest.raises(ValueError, match=r"wrong shape: blocks\.rest\.1\.feed_forward\.up\.kernel: expected .*12,10"):
        interop.load(folder)


WRONG = {
    "unknown field": ({"attention_sparsity": 0.5}, r"known of llama, got also attention_sparsity = 0\.5\. They may"),
    "unknown field that is false": (
        {"use_sparsity": False},
        r"known of llama, got also use_sparsity = False\. They may",
    ),
    "unknown family": ({"model_type": "llamba"}, r"expected a model_type among gpt2, .*, got 'llamba'"),
    "no vocabulary": ({"vocab_size": None}, r"expected the field 'vocab_size', got"),
    "activation": ({"hidden_act": "mish"}, r"expected an activation among gelu, .*, got 'mish'"),
    "rotary kind": (
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "longrope", "short_factor": [1.0]}},
        r"expected a rope_type among default, linear, dynamic, llama3, yarn, got 'longrope'",
    ),
    "rotary extra": (
        {"rope_parameters": {"rope_theta": 1e4, "mscale": 2.0}},
        r"that this library has, got also mscale",
    ),
    "part of a head": ({"partial_rotary_factor": 0.5}, r"expected partial_rotary_factor = 1\.0, .* got 0\.5"),
    "encoder": ({"is_encoder_decoder": True}, r"expected is_encoder_decoder = False"),
}


@pytest.mark.parametrize("name", WRONG)
def test_configs_that_are_refused(folder, name):
    fields, message = WRONG[name]
    change(folder, **fields)
    with pytest.raises(ValueError, match=message):
        interop.load(folder)


def test_no_folder_no_config_no_weights(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"expected a model folder with config.json, got .* \(no such folder\)"):
        interop.load(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected model.safetensors or model.safetensors.index.json in"):
        interop.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"expected JSON in .*config.json"):
        interop.load(folder)


INEXPRESSIBLE = {
    "normalizer": {"normalize": normalizers.sparsemax()},
    "mask": {"mask": masks.causal() | masks.prefix(3)},
    "position": {"position": "alibi"},
    "sinks": {"sinks": True},
}


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_a_config_that_no_family_expresses_is_not_saved(tmp_path, name):
    model = filled(dataclasses.replace(LLAMA, **INEXPRESSIBLE[name]))
    field = next(iter(INEXPRESSIBLE[name]))
    with pytest.raises(ValueError, match=rf"config: expected a model that some family .* cannot express: .*{field}"):
        interop.save(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_save_refuses_wrong_arguments(tmp_path, folder):
    model = interop.load(folder)
    with pytest.raises(ValueError, match=r"model that gpt2 of Hugging Face computes, got fields"):
        interop.save(model, tmp_path / "new", family="gpt2")
    with pytest.raises(ValueError, match=r"family: expected one of gpt2, .*, got 'rwkv'"):
        interop.save(model, tmp_path / "new", family="rwkv")
    with pytest.raises(ValueError, match=r"fields: expected only what does not change the logits, got rms_norm_eps"):
        interop.save(model, tmp_path / "new", fields={"rms_norm_eps": 1.0})
    with pytest.raises(FileExistsError, match=r"expected a folder without a model, got config.json, model.safetensors"):
        interop.save(model, folder)


def test_added_fields_are_in_the_config(tmp_path):
    interop.save(filled(LLAMA), tmp_path, fields={"eos_token_id": 2})
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"], config["model_type"]) == (2, None, "llama")
