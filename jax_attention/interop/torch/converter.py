"""Converter of one kind of layer: its options in both directions, and its table of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jax_attention.core.checks import fail_unless
from jax_attention.interop.weight_mapping import WeightMapping


class LayerConverter(NamedTuple):
    """One layer of `torch.nn` and the layer of this library that computes the same."""

    torch_name: str | None
    """Name of the class in `torch.nn`. None where PyTorch has no such class, and only state dictionaries convert."""
    jax_class: type
    """Layers of this class or a subclass are converted."""
    make: Callable[..., Any] | None
    """Makes the JAX layer from `jax_options(module)`, `param_dtype` and `rngs`."""
    jax_options: Callable[[Any], dict[str, Any]] | None
    """Arguments of `make`, from a torch module."""
    torch_options: Callable[[Any], dict[str, Any]] | None
    """Arguments of the class in `torch.nn`, from a JAX layer."""
    weight_mappings: Callable[[Any], list[WeightMapping]]
    """The table of weights of a JAX layer."""
    fits: Callable[[Any], bool] = lambda layer: True
    """Whether this converter is the one for a layer of its class."""


def check_options(module: Any, unsupported: dict[str, Any], cure: str) -> None:
    """Refuse a layer that has options which the other library lacks; the error lists those that are set."""
    present = [name for name, is_set in unsupported.items() if is_set]
    fail_unless(
        not present,
        f"{type(module).__name__}: expected a layer that both libraries have, got one with {', '.join(present)}. "
        f"{cure}",
    )
