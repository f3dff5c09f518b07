"""Marks for tiers: which parameters stay in `make test`, and that a renamed case raises an error."""

from __future__ import annotations

import pytest

from tests.house.sources import ROOT
from tests.support.tiers import long_except_every, slow, slow_except, slow_except_every


def marks(parameters) -> list[list[str]]:
    return [[mark.name for mark in getattr(parameter, "marks", ())] for parameter in parameters]


def test_named_parameters_stay_quick():
    parameters = ["a", pytest.param("b", id="second"), pytest.param("c", id="third")]
    assert marks(slow_except(("second",), parameters)) == [["slow"], [], ["slow"]]
    assert [getattr(p, "id", p) for p in slow_except(("second",), parameters)] == [None, "second", "third"]


def test_a_name_that_no_parameter_has_is_an_error():
    with pytest.raises(AssertionError, match="no parameter is named"):
        slow_except(("renamed",), ["a", "b"])


def test_every_nth_parameter_stays_quick():
    assert marks(slow_except_every(2, "abcd", 1)) == [["slow"], [], ["slow"], []]
    assert marks(long_except_every(2, "abc")) == [["slow"], ["long"], ["slow"]]
    assert marks(slow("a")) == [["slow"]]


def test_marks_of_a_parameter_are_kept():
    (parameter,) = slow(pytest.param(1, 2, marks=pytest.mark.gpu))
    assert parameter.values == (1, 2)
    assert marks([parameter]) == [["gpu", "slow"]]


def test_the_makefile_runs_every_test_in_some_tier():
    """The three tiers share no test, and together they are all tests that need no GPU."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for expression in (
        "not slow and not long and not gpu",
        "slow and not long and not gpu",
        "long and not gpu",
    ):
        assert f'-m "{expression}"' in makefile
