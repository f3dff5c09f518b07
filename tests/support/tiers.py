"""Which parameters of a test run in `make test`, and which in `make test-all` alone.

`make test` runs every contract, rule, implementation and error at least once. A grid of many parameters that all
exercise the same code is thinned there with these functions; the rest of it carries the mark `slow`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from typing import Any

import pytest

ParameterSet = type(pytest.param(0))


def slow(*values: Any) -> list[ParameterSet]:
    """These parameters, run by `make test-all` alone."""
    return [_marked_slow(value) for value in values]


def slow_except(quick: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """All values as parameters: those named in `quick` run in `make test` too.

    A value is named by its id if it is a `pytest.param`; else by itself, or by its attribute `name`.
    A name that no value has is an error, so that a renamed case cannot leave `make test` unnoticed.
    """
    values = list(values)
    unknown = [name for name in quick if not any(_has_name(value, name) for value in values)]
    assert unknown == [], f"no value is named {unknown}"
    return [value if any(_has_name(value, name) for name in quick) else _marked_slow(value) for value in values]


def slow_except_every(nth: int, values: Iterable[Any], first: int = 0) -> list[Any]:
    """All values as parameters: every nth of them runs in `make test` too."""
    return [value if i % nth == first else _marked_slow(value) for i, value in enumerate(values)]


def long_except_every(nth: int, values: Iterable[Any], first: int = 0) -> list[Any]:
    """All values as parameters: every nth of them runs in `make test-all`, the others in `make test-long` alone."""
    marks = (pytest.mark.slow if i % nth == first else pytest.mark.long for i in itertools.count())
    return [_marked(value, mark) for value, mark in zip(values, marks, strict=False)]


def _has_name(value: Any, name: Any) -> bool:
    if isinstance(value, ParameterSet):
        return name == (value.values[0] if value.id is None else value.id)
    return name in (value, getattr(value, "name", value))


def _marked_slow(value: Any) -> ParameterSet:
    return _marked(value, pytest.mark.slow)


def _marked(value: Any, mark: pytest.MarkDecorator) -> ParameterSet:
    if not isinstance(value, ParameterSet):
        return pytest.param(value, marks=mark)
    return pytest.param(*value.values, id=value.id, marks=(*value.marks, mark))
