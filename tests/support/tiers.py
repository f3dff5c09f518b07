"""Marks that choose which parameters of a test run in `make test` and which only in `make test-all`.

`make test` runs every contract, rule, implementation and error at least once. Where many parameters exercise the same
code, these functions leave a few of them in `make test` and mark the rest `slow`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from typing import Any

import pytest

ParameterSet = type(pytest.param(0))


def slow(*parameters: Any) -> list[ParameterSet]:
    """These parameters, marked to run only in `make test-all`."""
    return [_mark_slow(parameter) for parameter in parameters]


def slow_except(quick: Collection[Any], parameters: Iterable[Any]) -> list[Any]:
    """All parameters, marked slow except those named in `quick`.

    The name of a `pytest.param` is its id; other parameters are their own names, or have an attribute `name`.
    A name that no parameter has is an error, so that a renamed case cannot leave `make test` unnoticed.
    """
    parameters = list(parameters)
    unknown = [name for name in quick if not any(_has_name(parameter, name) for parameter in parameters)]
    assert unknown == [], f"no parameter is named {unknown}"
    return [
        parameter if any(_has_name(parameter, name) for name in quick) else _mark_slow(parameter)
        for parameter in parameters
    ]


def slow_except_every(nth: int, parameters: Iterable[Any], first: int = 0) -> list[Any]:
    """All parameters, marked slow except every nth."""
    return [parameter if i % nth == first else _mark_slow(parameter) for i, parameter in enumerate(parameters)]


def long_except_every(nth: int, parameters: Iterable[Any], first: int = 0) -> list[Any]:
    """All parameters: every nth runs in `make test-all`, the others only in `make test-long`."""
    marks = (pytest.mark.slow if i % nth == first else pytest.mark.long for i in itertools.count())
    return [_add_mark(parameter, mark) for parameter, mark in zip(parameters, marks, strict=False)]


def _has_name(parameter: Any, name: Any) -> bool:
    if isinstance(parameter, ParameterSet):
        return name == (parameter.values[0] if parameter.id is None else parameter.id)
    return name in (parameter, getattr(parameter, "name", parameter))


def _mark_slow(parameter: Any) -> ParameterSet:
    return _add_mark(parameter, pytest.mark.slow)


def _add_mark(parameter: Any, mark: pytest.MarkDecorator) -> ParameterSet:
    if not isinstance(parameter, ParameterSet):
        return pytest.param(parameter, marks=mark)
    return pytest.param(*parameter.values, id=parameter.id, marks=(*parameter.marks, mark))
