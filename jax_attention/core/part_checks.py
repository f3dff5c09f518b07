"""Checks of the parts of a rule: their kind, the parameters of users' functions, and what parts return."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jax_attention.core.checks import broadcasts, describe_array, fail_unless

_MODULES = {"score": "scores", "mods": "mods", "mask": "masks", "normalize": "normalizers"}


def check_kind(part: str, x: Any) -> None:
    """Refuse a part in the place of another one: it is callable too, and would be taken for a plain function."""
    kind = getattr(x, "part", None)
    fail_unless(
        kind in (None, part),
        f"{part}: expected a part from jax_attention.{_MODULES[part]} or a function, got {x!r}. It belongs to {kind}=.",
        TypeError,
    )
    fail_unless(
        not hasattr(x, "as_score"),
        f"{part}: expected a part, got the module {type(x).__name__}. Pass the score that it makes: module.as_score().",
        TypeError,
    )
    fail_unless(
        x is not jax.nn.softmax,
        f"{part}: expected a function (scores, where) -> weights, got jax.nn.softmax, whose second argument is the "
        "axis. Leave normalize out, or use normalizers.softmax().",
        TypeError,
    )


def check_parameters(part: str, function: Callable, names: tuple[str, ...]) -> None:
    """Refuse a user's function that cannot be called with the arguments of its part."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some functions written in C have none
    try:
        signature.bind(*names)
    except TypeError as error:
        raise TypeError(
            f"{part}: expected a function of ({', '.join(names)}), got {getattr(function, '__name__', function)}"
            f"{signature} ({error})."
        ) from None


def check_part(name: str, x: Any, factories: tuple[Callable, ...], hint: str) -> None:
    """Check that x is a part or a function; a factory that was not called, a string or an array is refused."""
    module = f"{name}s" if name != "normalize" else "normalizers"
    check_kind("mods" if name == "mod" else name, x)
    for factory in factories:
        if x is factory:
            raise TypeError(
                f"{name}: expected a part, got the factory {factory.__name__} itself. "
                f"Call it: {module}.{factory.__name__}(...)."
            )
    fail_unless(
        callable(x) and not isinstance(x, type),
        f"{name}: expected a part from jax_attention.{module} or a function, got {describe_array(x)}. {hint}",
        TypeError,
    )


def check_returned(name: str, x: Any, shape: tuple[int, ...]) -> None:
    """Check the shape of the array that a user's function returned."""
    got = tuple(getattr(x, "shape", ()))
    fail_unless(
        got == tuple(shape),
        f"{name}: expected the function to return shape {tuple(shape)}, got {describe_array(x)}. "
        "Batch dimensions must stay as they are: let arrays it closes over broadcast, slopes[:, None, None], and look "
        "tables up with broadcasting indices, table[jnp.arange(N)[:, None, None], q_pos - k_pos].",
    )


def check_broadcasts(name: str, x: Any, shape: tuple[int, ...]) -> None:
    """Check that the array a mask returned broadcasts to the scores without enlarging them."""
    fail_unless(
        broadcasts(x.shape, shape),
        f"{name}: expected a shape that broadcasts to the scores {tuple(shape)}, got {describe_array(x)}.",
    )


def check_bool(name: str, x: Any) -> None:
    """Check that a user's mask function returned booleans."""
    fail_unless(
        getattr(x, "dtype", None) == np.bool_,
        f"{name}: expected the function to return bool (True = may attend), got {describe_array(x)}. "
        "Pass additive values as mods=(mods.bias(array),).",
        TypeError,
    )
