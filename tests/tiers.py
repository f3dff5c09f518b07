"""Which parameters of a test run in `make test`, and which in `make test-all` alone.

`make test` runs every test function, every rule, implementation and error at least once. A grid of many parameters that
all exercise the same code is thinned there with these functions; the rest of it carries the mark `slow`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

ParameterSet = type(pytest.param(0))


def slow(*values: Any) -> list[ParameterSet]:
    """These parameters, run by `make test-all` alone."""
    return [_marked_slow(value) for value in values]


def slow_except(quick: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """All values as parameters: those named in `quick` run in `make test` too.

    A value is named by its id if it is a `pytest.param`, by its attribute `name` if it has one, or by itself.
    A name that no value has is an error, so that a renamed case cannot leave `make test` unnoticed.
    """
    values = list(values)
    unknown = [name for name in quick if name not in map(_name, values)]
    assert unknown == [], f"no value is named {unknown}"
    return [value if _name(value) in quick else _marked_slow(value) for value in values]


def slow_except_every(nth: int, values: Iterable[Any], first: int = 0) -> list[Any]:
    """All values as parameters: every nth of them runs in `make test` too."""
    return [value if i % nth == first else _marked_slow(value) for i, value in enumerate(values)]


def _name(value: Any) -> Any:
    if isinstance(value, ParameterSet):
        return value.id if value.id is not None else value.values[0]
    return getattr(value, "name", value)


def _marked_slow(value: Any) -> ParameterSet:
    if not isinstance(value, ParameterSet):
        return pytest.param(value, marks=pytest.mark.slow)
    return pytest.param(*value.values, id=value.id, marks=(*value.marks, pytest.mark.slow))
