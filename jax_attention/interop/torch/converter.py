"""What it takes to convert one kind of layer: two readers of options and a table of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jax_attention.core.checks import fail_unless
from jax_attention.interop.weight_mapping import Entry


class Kind(NamedTuple):
    """One layer of `torch.nn` and ours."""

    theirs: str | None
    """The name of the class in `torch.nn`; None where PyTorch has none and only state dictionaries are converted."""
    ours: type
    """Layers of this class or a subclass are converted."""
    make: Callable[..., Any] | None
    """Makes ours from `our_options`, `param_dtype` and `rngs`."""
    our_options: Callable[[Any], dict[str, Any]] | None
    """Arguments of ours, read off their module."""
    their_options: Callable[[Any], dict[str, Any]] | None
    """Arguments of theirs, read off our layer."""
    entries: Callable[[Any], list[Entry]]
    """Which of their arrays is which of ours, for one layer of ours."""
    fits: Callable[[Any], bool] = lambda layer: True
    """Whether a layer of that class is this kind."""


def refuse(module: Any, reasons: dict[str, Any], cure: str) -> None:
    """An error that lists the options of a layer that are set and that the other side does not have."""
    found = [name for name, is_set in reasons.items() if is_set]
    fail_unless(
        not found,
        f"{type(module).__name__}: expected a layer that both libraries have, got one with {', '.join(found)}. {cure}",
    )
