"""Every row of docs/coming_from.md, run with both libraries. Each row needs a test, and each test a row."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from tests.coming_from import (
    flash_rows,
    flax_rows,
    flex_rows,
    huggingface_rows,
    jax_nn_rows,
    torch_rows,
    x_transformers_rows,
)
from tests.support.tiers import slow_except

PAGE = Path(__file__).parents[2] / "docs" / "coming_from.md"
PEERS = (torch_rows, flex_rows, jax_nn_rows, flax_rows, huggingface_rows, flash_rows, x_transformers_rows)
ROW_FUNCTIONS = [
    (name.replace("_", "-"), function)
    for peer in PEERS
    for name, function in vars(peer).items()
    if re.fullmatch(r"[a-z]+_\d+", name)
]
"""The function `torch_1` tests the row `torch-1`."""
ROWS = dict(ROW_FUNCTIONS)

# The comparison is with eager execution, where torch warns that it recommends torch.compile.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


def ids_on_the_page() -> list[str]:
    return re.findall(r"^\| ([a-z]+-\d+) \|", PAGE.read_text(), flags=re.MULTILINE)


def test_every_row_has_a_test_and_every_test_a_row():
    ids = ids_on_the_page()
    assert len(ids) == len(set(ids))
    assert sorted(ids) == sorted(name for name, _ in ROW_FUNCTIONS)


def test_every_row_has_four_cells():
    for line in PAGE.read_text().splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_examples_on_the_page():
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted >= 4
    assert result.failed == 0


QUICK = ("torch-10", "torch-11", "flex-9", "jaxnn-3", "jaxnn-5", "jaxnn-7", "jaxnn-9")
QUICK += ("flax-3", "flax-8", "hf-1", "hf-8", "hf-14", "flash-2", "flash-9", "xt-6")
"""Rows that compile fast, for every library and every part of a rule. tests/peers/ compares the same functions."""


@pytest.mark.parametrize("name", slow_except(QUICK, ROWS))
def test_row(name):
    ROWS[name]()
