"""One text and one finished run for all tests of commands; who changes a run changes a copy."""

from __future__ import annotations

import pytest

from jax_attention.cli.main import main
from tests.cli.fox import QUICK, TEXT


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
