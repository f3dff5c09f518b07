"""What every experiment must leave in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import seed_training
from jax_attention import models

PNG = b"\x89PNG\r\n\x1a\n"
KEYS = ["config", "seeds", "numbers", "cpu_seconds", "command", "versions", "device"]


def left_behind(folder: Path, *pictures: str) -> dict[str, Any]:
    """A whole results.json and exactly these pictures; returns the numbers."""
    found = sorted(path.name for path in folder.iterdir())
    assert found == sorted(["results.json", *pictures])
    for name in pictures:
        assert (folder / name).read_bytes().startswith(PNG)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert list(results) == KEYS
    assert results["cpu_seconds"] > 0
    return results["numbers"]


class Done(NamedTuple):
    """What a command found, what it drew, and the folder that it left."""

    found: Any
    drawn: dict[str, Any]
    folder: Path


def commanded(command: Any, config: Any, folder: Path, **options: Any) -> Done:
    """Run the command of an experiment once, and keep what it found and drew; `options` are further ones of it."""
    kept = {}

    def keeping(name: str, call: Any) -> Any:
        def kept_call(*args: Any) -> Any:
            kept[name] = call(*args)
            return kept[name]

        return kept_call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("run", "draw"):
            patch.setattr(command, name, keeping(name, getattr(command, name)))
        command.main(command.Options(config=config, out=folder, **options))
    return Done(kept["run"], kept["draw"], folder)


def drawn(config: Any, seed: int = 0) -> Any:
    """The model of a config with parameters drawn by NumPy."""
    return numpy_start(partial(models.create, config), jax.random.key(seed))


def numpy_start(create: Any, rng: jax.Array) -> Any:
    """The model that `create` makes, with parameters drawn by NumPy: JAX compiles a large program to draw them."""
    draws = np.random.default_rng(np.asarray(jax.random.key_data(rng)))
    shapes = jax.eval_shape(create, rng)
    return jax.tree.map(lambda leaf: jnp.asarray(draws.normal(scale=0.3, size=leaf.shape), leaf.dtype), shapes)


@contextmanager
def small_programs() -> Iterator[None]:
    """Let a tiny run start with numbers of NumPy and learn by plain gradient descent.

    More than half of what it compiles otherwise is initial values and Adam, which test_learn.py runs.
    """
    create = models.create

    def create_quickly(config: Any, rng: Any) -> Any:
        if isinstance(rng, jax.core.Tracer):  # a part of a larger model, whose parameters `start` draws
            return create(config, rng)
        return drawn(config, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "create", create_quickly)
        patch.setattr(learn, "start", numpy_start)
        patch.setattr(learn, "adam", descent)
        yield


def descent(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Plain gradient descent, to replace `seed_training.adam`: its update compiles to a fraction of the operations."""
    return optax.sgd(learning_rate)


def same_start(one: Any, other: Any) -> int:
    """Assert that two configs make the same numbers from one key wherever both have a parameter; returns how many."""
    leaves = [_start(config) for config in (one, other)]
    shared = leaves[0].keys() & leaves[1].keys()
    assert all((leaves[0][path] == leaves[1][path]).all() for path in shared)
    return sum(leaves[0][path].size for path in shared)


@cache
def _start(config: Any) -> dict[Any, Any]:
    """The parameters of one key by their paths, kept because a file compares several models with the same one."""
    made = jax.jit(lambda rng: models.create(config, rng))(jax.random.key(3))
    return dict(jax.tree_util.tree_leaves_with_path(jax.tree.map(np.asarray, models.to_dict(made))))
