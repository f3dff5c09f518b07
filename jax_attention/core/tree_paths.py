"""Pytrees as flat dictionaries of arrays by path, and back: the names in checkpoints, weight files and adapters.

A path joins attribute names, dictionary keys and indices, as in `blocks.rest.0.attention.out.kernel`. An `nnx.Variable`
counts as its array, so a module and the plain nested dictionary of its parameters have the same paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.text import list_names

Tree = TypeVar("Tree")
MAX_LISTED = 8
"""How many names of one kind an error message shows."""


def arrays_by_path(tree: Any) -> dict[str, Any]:
    """The arrays of a module or any other pytree by their dotted path, in the order of `jax.tree.leaves`."""
    pairs = _paths_and_leaves(tree)
    if any(not path for path, _ in pairs):
        raise TypeError(f"module: expected a module with parameters, got an object of type {type(tree).__name__}.")
    return {_join(path, "."): leaf for path, leaf in pairs}


def leaves_by_path(state: Any) -> dict[str, Any]:
    """The leaves of a training state by their path, joined by slashes as checkpoints name them; arrays only."""
    pairs = [(_join(path, "/") or "array", leaf) for path, leaf in _paths_and_leaves(state)]
    for name, leaf in pairs:
        fail_unless(
            hasattr(leaf, "shape") and hasattr(leaf, "dtype"),
            f"state: expected arrays only, got {describe_array(leaf)} at {name}. Make it an array: jnp.asarray(...).",
            TypeError,
        )
    # Orbax joins nested keys by dots, so `a.b` and `a/b` would be one file.
    fail_unless(
        len({name.replace("/", ".") for name, _ in pairs}) == len(pairs),
        "state: expected leaves with different names, got some twice. Do not use dots or slashes in dictionary keys.",
    )
    return dict(pairs)


def replace_arrays(module: Tree, arrays: Mapping[str, Any], expectation: str) -> Tree:
    """A copy of the module with these arrays by dotted path: all of them, no others, each in its shape.

    The module may be abstract (from `jax.eval_shape`). Messages begin with `expectation`, "argument: expected ...".
    """
    expected = arrays_by_path(module)
    shapes = [
        f"{name}: expected {describe_array(x)}, got {describe_array(arrays[name])}"
        for name, x in expected.items()
        if name in arrays and tuple(jnp.shape(arrays[name])) != x.shape
    ]
    problems = {
        "missing": sorted(expected.keys() - arrays.keys()),
        "not of this model": sorted(arrays.keys() - expected.keys()),
        "wrong shape": shapes,
    }
    if any(problems.values()):
        raise ValueError(f"{expectation}, got {list_problems(problems)}.")
    return jax.tree.unflatten(jax.tree.structure(module), [arrays[name] for name in expected])


def check_finite(tree: Tree, expectation: str) -> Tree:
    """Return a module whose parameters are finite numbers; messages begin with `expectation`."""
    floats = {name: x for name, x in arrays_by_path(tree).items() if jnp.issubdtype(x.dtype, jnp.floating)}
    wrong = [name for name, x in floats.items() if not bool(jnp.isfinite(x).all())]
    fail_unless(not wrong, f"{expectation}, got NaN or infinity in {list_names(wrong, MAX_LISTED)}.")
    return tree


def list_problems(problems: Mapping[str, list[str]]) -> str:
    """Names by kind of problem as text: the first few of each kind, and how many there are."""
    return "; ".join(f"{kind}: {list_names(names, MAX_LISTED)}" for kind, names in problems.items() if names)


def list_differences(expected: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """One line for each name whose descriptions differ between two tables, or that only one of them has."""
    lines = []
    for name in [*expected, *(name for name in got if name not in expected)]:
        want, have = expected.get(name, "nothing"), got.get(name, "nothing")
        if want != have:
            lines.append(f"{list_names([name])}: expected {want}, got {have}")
    return lines


def nest(flat: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """Nested dictionaries from paths: `{"a/b": x}` becomes `{"a": {"b": x}}`."""
    nested: dict[str, Any] = {}
    for path, x in flat.items():
        *folders, last = path.split(separator)
        inner = nested
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = x
    return nested


def flatten(nested: Mapping[str, Any], separator: str, prefix: str = "") -> dict[str, Any]:
    """Paths from nested dictionaries, the inverse of `nest`."""
    flat: dict[str, Any] = {}
    for name, x in nested.items():
        path = f"{prefix}{name}"
        flat |= flatten(x, separator, path + separator) if isinstance(x, dict) else {path: x}
    return flat


def _paths_and_leaves(tree: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """Paths and leaves of a pytree, without the path entry that an `nnx.Variable` adds for its array."""
    from flax import nnx  # here, because the core must load without Flax

    def is_variable(x: Any) -> bool:
        return isinstance(x, nnx.Variable)

    pairs = []
    for path, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_variable)[0]:
        content = node.get_value() if is_variable(node) else node
        pairs += [((*path, *inner), leaf) for inner, leaf in jax.tree_util.tree_flatten_with_path(content)[0]]
    return pairs


def _join(path: tuple[Any, ...], separator: str) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=separator)
