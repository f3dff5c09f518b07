"""Models and trainings that compile little: parameters drawn by NumPy, plain gradient descent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import seed_training
from jax_attention import models


def numpy_model(config: Any, seed: int = 0) -> Any:
    """Model of a config with parameters drawn by NumPy."""
    return numpy_parameters(partial(models.create, config), jax.random.key(seed))


def numpy_parameters(create: Any, rng: jax.Array) -> Any:
    """Model that `create` makes, with parameters drawn by NumPy: JAX compiles a large program to draw them."""
    draws = np.random.default_rng(np.asarray(jax.random.key_data(rng)))
    shapes = jax.eval_shape(create, rng)
    return jax.tree.map(lambda leaf: jnp.asarray(draws.normal(scale=0.3, size=leaf.shape), leaf.dtype), shapes)


@contextmanager
def quick_training() -> Iterator[None]:
    """Let a tiny run start from parameters of NumPy and train by plain gradient descent.

    Otherwise more than half of what it compiles is initial parameters and Adam, which test_seed_training.py runs.
    """
    create = models.create

    def create_quickly(config: Any, rng: Any) -> Any:
        if isinstance(rng, jax.core.Tracer):  # a part of a larger model, whose parameters `initial_model` draws
            return create(config, rng)
        return numpy_model(config, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "create", create_quickly)
        patch.setattr(seed_training, "initial_model", numpy_parameters)
        patch.setattr(seed_training, "adam", gradient_descent)
        yield


def gradient_descent(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Plain gradient descent, to replace `adam`: its update compiles to a fraction of the operations."""
    return optax.sgd(learning_rate)


def count_equal_parameters(one: Any, other: Any) -> int:
    """Assert that two configs give the parameters that both have equal initial values; return their number."""
    first, second = (_initial_parameters(config) for config in (one, other))
    shared = first.keys() & second.keys()
    assert all((first[path] == second[path]).all() for path in shared)
    return sum(first[path].size for path in shared)


@cache
def _initial_parameters(config: Any) -> dict[Any, Any]:
    """Parameters of one key by their paths, cached because a file compares several models with the same one."""
    model = jax.jit(lambda rng: models.create(config, rng))(jax.random.key(3))
    return dict(jax.tree_util.tree_leaves_with_path(jax.tree.map(np.asarray, models.to_dict(model))))
