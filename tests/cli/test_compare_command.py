"""`jax-attention compare`: output, page and exit status."""

from __future__ import annotations

import json

import pytest
import torch

from jax_attention import data, interop
from jax_attention.cli.__main__ import main
from tests.cli.quick_run import error_of
from tests.support import hf_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    kind, fields = hf_models.CASES["llama 2"]
    hf_models.make_model(kind, fields | {"num_hidden_layers": 1}).save_pretrained(path)
    data.Characters("abcdefgh").save(path)
    return path


def test_equal_models_give_a_table_a_page_and_status_0(folder, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert main(["compare", str(folder), "--text", "abcd", "--html", str(page)]) == 0
    printed, progress = (x.splitlines() for x in capsys.readouterr())
    assert progress == [
        f"loading {folder} in transformers",
        f"loading {folder} in jax_attention",
        "running transformers on 4 tokens",
        "running jax_attention on the same tokens",
        "comparing every part, layer by layer",
    ]
    assert printed[0].split("\t")[:3] == ["layer", "point", "max abs"]
    assert len(printed) == 1 + len(interop.compare(folder, text="abcd").rows) + 2
    assert printed[-1] == f"LlamaForCausalLM of {folder}, float32: rounding"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.slow
def test_other_dtypes(folder, capsys):
    assert main(["compare", str(folder), "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr().out.endswith("bfloat16: rounding\n")
    assert main(["compare", str(folder), "--dtype", "stored"]) == 0
    assert capsys.readouterr().out.endswith("float32: rounding\n")


@pytest.mark.slow
def test_an_encoder_decoder_reads_a_source(tmp_path, capsys):
    hf_models.build("t5").save_pretrained(tmp_path)
    data.Characters("abcdefgh").save(tmp_path)
    assert main(["compare", str(tmp_path), "--text", "ab", "--source", "cdefg"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in printed if "\tcross-attention\t" in line] == [
        f"decoder {layer}" for layer in range(3)
    ]
    assert printed[-1] == f"T5ForConditionalGeneration of {tmp_path}, float32: rounding"


def test_different_models_give_status_1(folder, monkeypatch, capsys):
    from transformers.models.llama import modeling_llama

    kind = modeling_llama.LlamaMLP
    original_init = kind.__init__

    def with_gelu(self, config):
        original_init(self, config)
        self.act_fn = torch.nn.GELU()

    monkeypatch.setattr(kind, "__init__", with_gelu)
    assert main(["compare", str(folder)]) == 1
    printed = capsys.readouterr()
    assert "suspicious from layer 0, feed-forward: the activation is the exact GELU (erf) as gate" in printed.out
    assert printed.err.splitlines()[-1] == "looking for the cause of the difference in 0 feed-forward"


def test_wrong_folders_are_refused(tmp_path, capsys):
    assert "expected a model folder with config.json" in error_of(["compare", str(tmp_path / "nowhere")], capsys)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bloom"}))
    assert "expected a model_type among" in error_of(["compare", str(tmp_path)], capsys)
