"""A pytree as named arrays on the host, and back: what a checkpoint holds.

Names are paths, `model/blocks/query/kernel`: attribute names, dictionary keys and indices, joined by slashes. An
`nnx.Variable` counts as its value, so a module and the plain nested dictionary of its parameters have the same names.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jax_attention.core.checks import describe_array, fail_unless


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves by name, in the order of `jax.tree.leaves`."""
    found: dict[str, Any] = {}
    for path, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
        value = node.get_value() if _is_variable(node) else node
        for inner, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
            name = jax.tree_util.keystr((*path, *inner), simple=True, separator="/") or "array"
            _check_leaf(name, leaf)
            found[name] = leaf
    # Orbax joins nested keys by dots, so `a.b` and `a/b` would be one file.
    count = len({name.replace("/", ".") for name in found})
    fail_unless(
        count == len(jax.tree.leaves(tree)),
        "state: expected leaves with different names, got some twice. Do not use dots or slashes in dictionary keys.",
    )
    return found


def _is_variable(x: Any) -> bool:
    return isinstance(x, nnx.Variable)


def _check_leaf(name: str, leaf: Any) -> None:
    fail_unless(
        hasattr(leaf, "shape") and hasattr(leaf, "dtype"),
        f"state: expected arrays only, got {describe_array(leaf)} at {name}. Make it an array: jnp.asarray(...).",
        TypeError,
    )


def is_key(x: Any) -> bool:
    """Whether x is an array of typed random keys (or says that it will be one)."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def to_host(x: Any) -> np.ndarray:
    """A copy in host memory; random keys as their bits.

    A copy, because on a CPU `np.asarray` is a view of the jax array's buffer, and while a view lives the next step
    cannot reuse the buffer that it was given.
    """
    return np.array(jax.random.key_data(x) if is_key(x) else x, copy=True)


def to_device(array: np.ndarray, like: Any, impl: str | None) -> jax.Array:
    """A host array as a jax array placed like `like` (its sharding, if it was given one on purpose)."""
    value = jnp.asarray(array)
    if is_key(like):
        value = jax.random.wrap_key_data(value, impl=impl)
    chosen = getattr(like, "sharding", None) if getattr(like, "committed", True) else None
    return value if chosen is None else jax.device_put(value, chosen)


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, last = name.split("/")
        inner = nested
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = value
    return nested


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The inverse of `nest`."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def differences(expected: dict[str, str], got: dict[str, str]) -> list[str]:
    """What does not agree between two tables of names and descriptions, a line each."""
    lines = []
    for name in [*expected, *(name for name in got if name not in expected)]:
        want, have = expected.get(name, "nothing"), got.get(name, "nothing")
        if want != have:
            lines.append(f"{name}: expected {want}, got {have}")
    return lines
