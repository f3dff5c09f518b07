"""Errors of wrong arguments name the argument, what was expected and what came, and nothing is written."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jax_attention import decoding, interop, models, nn
from tests.models import small

CONFIG = models.llama(vocab_size=19, context=8, width=8, depth=1, num_heads=2, kv_heads=1, ff_size=12, scan=False)
ENCODER_DECODER = models.EncoderDecoderConfig(
    encoder=models.LMConfig(vocab_size=5, width=8, depth=1, num_heads=2, mask=None),
    decoder=models.LMConfig(vocab_size=5, width=8, depth=1, num_heads=2, memory_size=8),
)


@pytest.fixture(scope="module")
def model():
    return small.filled(lambda: models.create(CONFIG))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("wrong") / "model"
    interop.save(model, path)
    return path


WRONG = {
    "load a number": (
        lambda m, p, new: interop.load(3),
        "path: expected the name of a folder, got a value of type int",
    ),
    "load a dtype": (lambda m, p, new: interop.load(p, dtype="fp8"), "dtype: expected one of float32, .*got 'fp8'"),
    "load float64": (
        lambda m, p, new: interop.load(p, param_dtype="float64"),
        "param_dtype: expected x64 mode for float64",
    ),
    "load scan": (
        lambda m, p, new: interop.load(p, scan="no"),
        "scan: expected True or False, got a value of type str",
    ),
    "save a number": (
        lambda m, p, new: interop.save(3, new),
        "model: expected a models.TransformerLM or EncoderDecoder",
    ),
    "save a stack": (
        lambda m, p, new: interop.save(small.filled(lambda: models.TransformerStack(CONFIG, rngs=nnx.Rngs(0))), new),
        "got a value of type TransformerStack",
    ),
    "save into a number": (lambda m, p, new: interop.save(m, 3), "path: expected the name of a folder, got"),
    "save into a file": (
        lambda m, p, new: interop.save(m, p / "config.json"),
        "path: expected a folder, got '.*config.json', where a file is in the way",
    ),
    "save families": (
        lambda m, p, new: interop.save(m, new, family=["llama"]),
        r"family: expected one of gpt2.*\['llama'\]",
    ),
    "save fields": (
        lambda m, p, new: interop.save(m, new, fields=3),
        "fields: expected a dictionary of fields of config",
    ),
    "save numbered fields": (lambda m, p, new: interop.save(m, new, fields={2: 3}), "fields: expected names of fields"),
    "save strange fields": (
        lambda m, p, new: interop.save(m, new, fields={"eos_token_id": object()}),
        "fields: expected values that JSON can say",
    ),
    "save no bytes": (
        lambda m, p, new: interop.save(m, new, max_shard_bytes=0),
        "max_shard_bytes: expected an int >= 1",
    ),
    "save text bytes": (
        lambda m, p, new: interop.save(m, new, max_shard_bytes="5GB"),
        "max_shard_bytes: expected a Python int",
    ),
    "adapters of a number": (lambda m, p, new: nn.lora(3, 2, 0), "module: expected a module, got a value of type int"),
    "adapters of torch": (lambda m, p, new: nn.lora(torch.nn.Linear(2, 2), 2, 0), "got a value of type Linear"),
    "adapters without a seed": (
        lambda m, p, new: nn.lora(m, 2, None),
        "rng: expected a random key or a seed, got a value",
    ),
    "adapters nowhere": (
        lambda m, p, new: nn.lora(m, 2, 0, targets=3),
        "targets: expected a regular expression, got a",
    ),
    "half a pattern": (
        lambda m, p, new: nn.lora(m, 2, 0, targets="("),
        r"targets: expected a regular expression, got '\('",
    ),
    "adapted by a dict": (
        lambda m, p, new: nn.apply_adapters(m, {}),
        "adapters: expected nn.Adapters, got a value of type dict",
    ),
    "adapted number": (lambda m, p, new: nn.apply_adapters(3, nn.lora(m, 1, 0)), "module: expected a module, got"),
    "load adapters": (lambda m, p, new: interop.load_adapters(m, 3), "path: expected the name of a folder"),
    "load no adapters": (lambda m, p, new: interop.load_adapters(m, p), "path: expected adapter_config.json in"),
    "load adapters for 3": (
        lambda m, p, new: interop.load_adapters(3, p),
        "model: expected a models.Tr",
    ),
    "save no adapters": (lambda m, p, new: interop.save_adapters(m, 3, new), "adapters: expected nn.Adapters"),
    "save adapters for 3": (
        lambda m, p, new: interop.save_adapters(3, nn.lora(m, 1, 0), new),
        "model: expected a models.Tr",
    ),
    "a base that is a number": (
        lambda m, p, new: interop.save_adapters(m, nn.lora(m, 1, 0), new, base=3),
        "base: expected the name or folder of the base model",
    ),
    "a state that is a number": (
        lambda m, p, new: interop.from_state_dict(nn.Linear(2, 2, rngs=nnx.Rngs(0)), 3),
        "state_dict: expected a dictionary of arrays, got a value of type int",
    ),
    "a comparison with a number": (
        lambda m, p, new: interop.compare(p, 3),
        "jax_model: expected a models.TransformerLM or Enc",
    ),
    "a comparison in fp8": (lambda m, p, new: interop.compare(p, dtype="fp8"), "dtype: expected one of None, float32"),
    "a model of a number": (
        lambda m, p, new: models.create(3),
        r"expected models.LMConfig\(...\), EncoderDecoderConfig\(...\) or RNNConfig\(...\), got a value of type int",
    ),
    "a model without a seed": (lambda m, p, new: models.create(CONFIG, None), "rng: expected a random key or a seed"),
    "a stack of an encoder-decoder": (
        lambda m, p, new: models.TransformerStack(ENCODER_DECODER, rngs=nnx.Rngs(0)),
        "config: expected models.LMConfig",
    ),
    "an encoder-decoder of one config": (
        lambda m, p, new: models.EncoderDecoder(CONFIG, rngs=nnx.Rngs(0)),
        "config: expected models.EncoderDecoderC",
    ),
    "a number scanned": (
        lambda m, p, new: models.scan_layers(3),
        "model: expected a Transformer of jax_attention.models, got",
    ),
    "a number as JSON": (lambda m, p, new: models.config_to_json(3), "config: expected models.LMConfig"),
    "an encoder-decoder generates": (
        lambda m, p, new: decoding.generate(
            small.filled(lambda: models.create(ENCODER_DECODER)), [1], max_new_tokens=2
        ),
        r"got an EncoderDecoder, which reads a source first. Give its decoder: model.condition\(source\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named(name, model, folder, tmp_path):
    call, message = WRONG[name]
    with pytest.raises((ValueError, TypeError, FileNotFoundError, FileExistsError), match=f"^.*{message}"):
        call(model, folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_dtypes_and_ids_of_numpy_are_fine(model, tmp_path):
    interop.save(model, tmp_path, fields={"eos_token_id": np.int64(2)})
    assert interop.load(tmp_path, dtype=jnp.bfloat16).config.dtype == "bfloat16"
