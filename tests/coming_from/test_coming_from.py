"""Every row of docs/coming_from.md, run on both sides. A row without a test, or a test without a row, fails."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from tests.coming_from import flash_rows, flax_rows, flex_rows, huggingface_rows, jax_nn_rows, torch_rows
from tests.support.tiers import slow_except

PAGE = Path(__file__).parents[2] / "docs" / "coming_from.md"
PEERS = (torch_rows, flex_rows, jax_nn_rows, flax_rows, huggingface_rows, flash_rows)
FOUND = [
    (name.replace("_", "-"), function)
    for peer in PEERS
    for name, function in vars(peer).items()
    if re.fullmatch(r"[a-z]+_\d+", name)
]
"""A function called `torch_1` is the test of the row `torch-1`."""
ROWS = dict(FOUND)

# Eager execution is what we compare with; torch only recommends to compile it.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


def ids_on_the_page() -> list[str]:
    return re.findall(r"^\| ([a-z]+-\d+) \|", PAGE.read_text(), flags=re.MULTILINE)


def test_every_row_has_a_test_and_every_test_a_row():
    found = ids_on_the_page()
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(name for name, _ in FOUND)


def test_every_row_has_four_cells():
    for line in PAGE.read_text().splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_output_on_the_page_is_real():
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted >= 4
    assert result.failed == 0


QUICK = ("torch-10", "torch-11", "flex-9", "jaxnn-3", "jaxnn-5", "jaxnn-7", "jaxnn-9")
QUICK += ("flax-3", "flax-8", "hf-1", "hf-8", "hf-14", "flash-2", "flash-9")
"""Rows of every library and every part of a rule that compile little; tests/peers/ compares the same functions."""


@pytest.mark.parametrize("name", slow_except(QUICK, ROWS))
def test_row(name):
    ROWS[name]()
