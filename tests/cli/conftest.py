"""A text and a few finished runs, shared by all tests of commands; a test that changes a run copies it first."""

from __future__ import annotations

import pytest

from jax_attention.cli.__main__ import main
from tests.cli import hf_folder
from tests.cli.quick_run import QUICK, TEXT


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "fox.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def run(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "fox"
    assert main(["train", str(text), "--out", str(folder), *QUICK]) == 0
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A Hugging Face folder: a tiny Llama with a tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "base"
    hf_folder.write_base(folder)
    return folder


@pytest.fixture(scope="session")
def tuned(text, base, tmp_path_factory):
    """A run that trained the whole base model further, without sample texts (the run of adapters has some)."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    options = ["--learning-rate", "3e-3", "--weight-decay", "0", "--sample-tokens", "0"]
    assert main(["train", str(text), "--from", str(base), "--out", str(folder), *hf_folder.FINE_TUNE, *options]) == 0
    return folder


@pytest.fixture(scope="session")
def whole(text, base, tmp_path_factory):
    """A run on the whole base model that ends before its first step."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    options = ["--steps", "0", "--warmup", "0", "--sample-tokens", "0", "--batch-size", "4", "--length", "16"]
    assert main(["train", str(text), "--from", str(base), "--out", str(folder), *options]) == 0
    return folder


@pytest.fixture(scope="session")
def adapters(text, base, tmp_path_factory):
    """A run that trained adapters for the base model, its blocks scanned."""
    folder = tmp_path_factory.mktemp("runs") / "adapters"
    options = ["--lora", "3", "--lora-alpha", "6", "--lora-targets", "projections|down", "--scan", "True"]
    options += ["--learning-rate", "3e-2", "--dropout", "0.1", "--accumulate", "2"]
    assert main(["train", str(text), "--from", str(base), "--out", str(folder), *hf_folder.FINE_TUNE, *options]) == 0
    return folder
