"""Calls between modules that `flax.nnx.tabulate` does not list."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def unlisted(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method itself, also while `nnx.tabulate` runs and has replaced it by a function that lists its calls.

    That function would trace static arguments (slices, requests, configs), and it fails to print masks without arrays,
    and structs inside tuples, such as mods and the memory of a decoder (flax 0.12). So modules call each other by
    `unlisted(module.method)(...)` where such arguments are passed, and directly where arrays are.
    """
    function = getattr(method, "__func__", None)
    if getattr(function, "__globals__", {}).get("__name__") != "flax.nnx.summary":
        return method
    return partial(function.__wrapped__, method.__self__)
