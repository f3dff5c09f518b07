"""The examples in the docstrings of the corpora run."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["grammar", "passages", "reports"])
def test_docstring_examples_run(name):
    module = importlib.import_module(f"experiments.corpora.{name}")
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
