"""Model folders of unknown origin: each is refused by one line that names the file or the field, in time and memory
that do not depend on what it claims.
"""

from __future__ import annotations

import importlib
import json
import re
import time

import numpy as np
import pytest

from jax_attention import interop, models
from tests.models import small
from tests.robustness.hostile_folders import (
    INDEX,
    WEIGHTS,
    as_array,
    change_arrays,
    change_json,
    copied,
    with_dtype,
    with_header,
    with_index,
)

EMBEDDING = "transformer.wte.weight"
FIELD = r"config\.json: expected {} to be {}, got {}"
ERRORS = (ValueError, TypeError, OSError)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign") / "gpt2"
    config = models.gpt2(vocab_size=19, context=8, width=8, depth=2, num_heads=2, scan=False)
    interop.save(small.filled(lambda: models.create(config)), folder)
    return folder


def field(**fields):
    return lambda folder: change_json(folder, **fields)


def text(file, content):
    return lambda folder: (folder / file).write_bytes(content)


def infinite_epsilon(folder):
    path = folder / "config.json"
    path.write_bytes(path.read_bytes().replace(b"1e-05", b"Infinity"))


def shard(name):
    return lambda folder: with_index(folder, {EMBEDDING: name})


def arrays(change):
    return lambda folder: change_arrays(folder, change)


def dtype(name, itemsize):
    return lambda folder: with_dtype(folder, EMBEDDING, name, itemsize)


def msgpack(content):
    def write(folder):
        (folder / WEIGHTS).unlink()
        (folder / "flax_model.msgpack").write_bytes(content)

    return write


def link_to(target):
    def write(folder):
        (folder.parent / "secret.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
        with_index(folder, {EMBEDDING: "link.safetensors"})
        (folder / "link.safetensors").symlink_to(folder.parent / target)

    return write


REFUSED = {
    # config.json: types and ranges
    "null size": (field(n_embd=None), FIELD.format("n_embd", "an integer from 1 to 2,147,483,647", "None")),
    "size as text": (field(n_embd="8"), "n_embd to be an integer"),
    "size as list": (field(vocab_size=[19]), "vocab_size to be an integer"),
    "true as size": (field(n_head=True), "n_head to be an integer"),
    "fraction as size": (field(n_embd=8.5), "n_embd to be an integer"),
    "huge vocabulary": (field(vocab_size=10**12), "vocab_size to be an integer from 1 to"),
    "large vocabulary": (field(vocab_size=2**31 - 1), r"wrong shape: embedding: expected float32\[2147483647,8\]"),
    "many layers": (field(n_layer=10**9), "n_layer to be an integer from 1 to 4,096"),
    "more layers than arrays": (field(n_layer=4096), "expected the arrays of 4,096 layers, .* got 28 arrays in all"),
    "many heads": (field(n_head=2**20), "num_heads: expected a divisor of width = 8"),
    "infinite epsilon": (infinite_epsilon, "expected JSON in .*config.json', got the number 'Infinity'"),
    "large epsilon": (field(layer_norm_epsilon=1e308), "with 0 < epsilon <= 1, got 1e"),
    "rate": (field(resid_pdrop=1.5), "resid_pdrop to be a number with 0 <= rate < 1, got 1.5"),
    "rate as text": (field(embd_pdrop="0.1"), "embd_pdrop to be a number with 0 <= rate < 1, got '0.1'"),
    "two rates": (field(resid_pdrop=0.2, embd_pdrop=0.1), "resid_pdrop and embd_pdrop to be equal.*got 0.2 and 0.1"),
    "activation": (field(activation_function=["gelu"]), "activation_function to be a text, got"),
    "model type": (field(model_type=["gpt2"]), r"expected a model_type among .*, got \['gpt2'\]"),
    "architectures": (field(architectures=3), "architectures to be a list of texts or null, got 3"),
    "labels": (field(num_labels=10**9), "num_labels to be an integer from 1 to 1,000,000"),
    "unknown field": (field(**{"\x1b]0;title\x07": 1}), r"got also \\x1b\]0;title\\x07 = 1"),
    "long value": (field(secret="a" * 10**6), "got also secret = 'aaa.*characters"),
    "many fields": (field(**{f"field_{i}": 1 for i in range(10_000)}), "and 9,992 more. They may change"),
    "a list": (text("config.json", b"[1]"), "got a list, not an object"),
    "deep": (text("config.json", b'{"a":' * 50_000), "got more than 64 levels of brackets"),
    "deep enough for Python": (text("config.json", b'{"a":' * 90 + b"1" + b"}" * 90), "more than 64 levels"),
    "a long integer": (text("config.json", b'{"a": ' + b"1" * 5000 + b"}"), "an integer of 5,000 digits"),
    "not UTF-8": (text("config.json", b'{"a": "\xff"}'), "got bytes that are not UTF-8"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "expected a model folder with config.json"),
    # headers of safetensors
    "no arrays": (lambda folder: with_header(folder, {}), "got a file without arrays"),
    "no header": (text(WEIGHTS, b""), "expected safetensors in"),
    "a header without end": (text(WEIGHTS, (2**63).to_bytes(8, "little") + b"{}"), "expected safetensors in"),
    "a header of a list": (lambda folder: with_header(folder, [1]), "expected safetensors in"),
    "only buffers": (arrays(lambda x: {"h.0.attn.bias": as_array([1])}), "got 1 arrays in all"),
    "int32": (dtype("I32", 4), f"got {EMBEDDING} I32. Quantised"),
    "uint32": (dtype("U32", 4), f"got {EMBEDDING} U32"),
    "bool": (dtype("BOOL", 1), f"got {EMBEDDING} BOOL"),
    "float8": (dtype("F8_E4M3", 1), f"got {EMBEDDING} F8_E4M3"),
    "a long name": (
        lambda folder: change_arrays(folder, lambda x: x | {"y" * 10**6: as_array([1])}),
        "unused: yyyy",
    ),
    "many names": (
        lambda folder: change_arrays(folder, lambda x: x | {f"x{i}": as_array([1]) for i in range(3000)}),
        "and 2,992 more",
    ),
    "rank": (
        lambda folder: change_arrays(folder, lambda x: x | {"transformer.h.0.attn.c_attn.weight": as_array(3)}),
        "wrong shape",
    ),
    # names of files
    "shard above": (shard("../secret.safetensors"), "got '../secret.safetensors'"),
    "absolute shard": (shard("/etc/passwd"), "got '/etc/passwd'"),
    "shard in a folder": (shard("a/b"), "got 'a/b'"),
    "long shard": (shard("s" * 10**6), "weight_map: expected the name of a file"),
    "shard with NUL": (shard("a\0b"), "weight_map: expected the name of a file"),
    "shard with a surrogate": (shard("\ud800"), "weight_map: expected the name"),
    "link to the outside": (link_to("secret.safetensors"), "a link to .* outside of it"),
    "missing shard": (shard("none"), "expected every shard that .* got none of none"),
    "index of a list": (lambda folder: with_index(folder, [EMBEDDING]), "expected a weight_map from names of arrays"),
    "index of numbers": (shard(3), "expected a weight_map from names of arrays"),
    "index without a map": (lambda folder: with_index(folder, None), "expected a weight_map from names of arrays"),
    "index of other arrays": (lambda folder: with_index(folder, {"x": "part.safetensors"}), "got none for x"),
    # Flax
    "msgpack of a number": (msgpack(b"\x01"), "an undamaged flax_model.msgpack, a dictionary"),
    "msgpack of text": (msgpack(b"\x81\xa1a\xa1b"), "expected weights in .* got a|arrays of 2 layers"),
    "deep msgpack": (msgpack(b"\x81\xa1a" * 5000), "an undamaged flax_model.msgpack"),
    "no msgpack": (msgpack(b""), "an undamaged flax_model.msgpack"),
    "msgpack of a long list": (msgpack(b"\xdd\xff\xff\xff\xff"), "an undamaged flax_model.msgpack"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_is_refused(name, gpt2, tmp_path):
    damage, message = REFUSED[name]
    folder = copied(gpt2, tmp_path / "model")
    damage(folder)
    start = time.perf_counter()
    with pytest.raises(ERRORS) as caught:
        interop.load(folder)
    assert time.perf_counter() - start < 2
    assert re.search(message, str(caught.value)), str(caught.value)[:500]
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["many layers", "more layers than arrays", "large vocabulary", "int32", "shard above"])
def test_compare_refuses_a_folder_before_transformers_reads_it(name, gpt2, tmp_path, monkeypatch):
    compare = importlib.import_module("jax_attention.interop.parity.compare")
    damage, message = REFUSED[name]
    folder = copied(gpt2, tmp_path / "model")
    damage(folder)
    monkeypatch.setattr(compare, "load_hf_model", lambda *args: pytest.fail("transformers read it"))
    with pytest.raises(ERRORS, match=message):
        interop.compare(folder)


def test_nothing_is_read_before_the_headers_fit(gpt2, tmp_path, monkeypatch):
    from jax_attention.interop.hf import stored_weights

    folder = copied(gpt2, tmp_path / "model")
    change_arrays(folder, lambda x: x | {"transformer.wpe.weight": np.zeros((8, 9), np.float32)})
    monkeypatch.setattr(stored_weights.Numbers, "__getitem__", lambda *args: pytest.fail("numbers were read"))
    with pytest.raises(ValueError, match=r"wrong shape: position: expected float32\[8,8\], got float32\[8,9\]"):
        interop.load(folder)


@pytest.mark.slow  # imports transformers
def test_weights_that_are_not_finite_are_not_compared(gpt2, tmp_path):
    folder = copied(gpt2, tmp_path / "model")
    change_arrays(folder, lambda x: x | {EMBEDDING: np.full_like(x[EMBEDDING], np.nan)})
    with pytest.raises(ValueError, match=r"expected a folder with finite weights.*got NaN or infinity in embedding"):
        interop.compare(folder)


def test_links_of_the_hub_cache_are_read(gpt2, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "1").write_bytes((gpt2 / WEIGHTS).read_bytes())
    (snapshot / "part.safetensors").symlink_to("../../blobs/1")
    names = json.loads((gpt2 / WEIGHTS).read_bytes()[8:].split(b"}}")[0] + b"}}")
    (snapshot / INDEX).write_text(
        json.dumps({"weight_map": dict.fromkeys(set(names) - {"__metadata__"}, "part.safetensors")})
    )
    (snapshot / "config.json").write_bytes((gpt2 / "config.json").read_bytes())
    assert interop.load(snapshot).config.depth == 2


# --- Pickles and adapters ---------------------------------------------------------------------------------------------


def test_a_pickle_is_checked_too(gpt2, tmp_path):
    import torch

    folder = copied(gpt2, tmp_path / "model")
    (folder / WEIGHTS).unlink()
    for content, message in (
        ([1], "a dictionary of tensors"),
        ({EMBEDDING: torch.zeros(1).expand(2**40)}, "larger than its numbers"),
        ({3: torch.zeros(1)}, "a dictionary of tensors"),
        ({EMBEDDING: 3}, "a dictionary of tensors"),
        ({f"h.{i}": torch.zeros(2, dtype=torch.int32) for i in range(4)}, "int32. Quantised"),
    ):
        torch.save(content, folder / "pytorch_model.bin")
        with pytest.raises(ValueError, match=message):
            interop.load(folder, allow_pickle=True)
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    with pytest.raises(ValueError, match="a dictionary of tensors"):
        interop.load(folder, allow_pickle=True)


ADAPTERS = {
    "alpha as text": ({"lora_alpha": "8"}, "adapter_config.json: expected lora_alpha to be a number from"),
    "alpha is null": ({"lora_alpha": None}, "expected lora_alpha to be"),
    "patterns as a list": ({"alpha_pattern": [1]}, "expected alpha_pattern to be an object of numbers or null"),
    "a pattern that backtracks": ({"alpha_pattern": {"(a+)+$": 1.0}}, "names of layers in alpha_pattern"),
    "half a pattern": ({"alpha_pattern": {"[": 1.0}}, "names of layers in alpha_pattern"),
    "other adapters": ({"peft_type": ["LORA"]}, "expected peft_type = 'LORA'"),
    "more": ({"x" * 10**5: 1}, "got also xxxx"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_are_refused(name, gpt2, tmp_path):
    from jax_attention import nn

    model = interop.load(gpt2)
    interop.save_adapters(model, nn.lora(model, rank=1, rng=0), tmp_path)
    fields, message = ADAPTERS[name]
    change_json(tmp_path, "adapter_config.json", **fields)
    with pytest.raises(ERRORS, match=message) as caught:
        interop.load_adapters(model, tmp_path)
    assert len(str(caught.value)) < 1000
