"""Marks for tiers: what stays in `make test`, and that no name of a case can be lost."""

from __future__ import annotations

import pytest

from tests.house.sources import ROOT
from tests.support.tiers import long_except_every, slow, slow_except, slow_except_every


def marks(values) -> list[list[str]]:
    return [[mark.name for mark in getattr(value, "marks", ())] for value in values]


def test_named_values_stay_quick():
    values = ["a", pytest.param("b", id="second"), pytest.param("c", id="third")]
    assert marks(slow_except(("second",), values)) == [["slow"], [], ["slow"]]
    assert [getattr(value, "id", value) for value in slow_except(("second",), values)] == [None, "second", "third"]


def test_a_name_that_no_value_has_is_an_error():
    with pytest.raises(AssertionError, match="no value is named"):
        slow_except(("renamed",), ["a", "b"])


def test_every_nth_value_stays_quick():
    assert marks(slow_except_every(2, "abcd", 1)) == [["slow"], [], ["slow"], []]
    assert marks(long_except_every(2, "abc")) == [["slow"], ["long"], ["slow"]]
    assert marks(slow("a")) == [["slow"]]


def test_marks_of_a_value_are_kept():
    (value,) = slow(pytest.param(1, 2, marks=pytest.mark.gpu))
    assert value.values == (1, 2)
    assert marks([value]) == [["gpu", "slow"]]


def test_the_makefile_runs_every_test_in_some_tier():
    """`make test` and `make test-all` share no test. `make test-long` runs every test that needs no GPU."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for expression in (
        "not slow and not long and not gpu",
        "slow and not long and not gpu",
        "not gpu",
    ):
        assert f'-m "{expression}"' in makefile
