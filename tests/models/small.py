"""Small models with random parameters of order one, made without compiling anything; a config per position scheme."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import models, positions
from tests.support.tolerances import FORWARD, GRADIENT

VOCABULARY, CONTEXT = 13, 12
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""`jax.jit` with XLA's optimizations off: the programs here run once on a few numbers, and compile in half the time."""

CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
CLOSE_GRADIENT = {"rtol": GRADIENT["float32"], "atol": GRADIENT["float32"]}

SCHEMES: dict[str, dict[str, Any]] = {
    "learned": {"activation": "gelu_tanh"},
    "sinusoidal": {"norm_place": "post", "activation": "gelu", "tied_head": False},
    "rotary": {
        "norm": "rms",
        "norm_place": "sandwich",
        "activation": "geglu_tanh",
        "use_bias": False,
        "kv_heads": 2,
        "head_size": 6,
        "windows": (3, None),
        "local_rope": positions.rotary(base=100.0),
        "qk_norm": True,
        "scale_embedding": True,
        "score_cap": 2.0,
        "logit_cap": 5.0,
    },
    "alibi": {
        "norm": "rms",
        "norm_place": "after",
        "activation": "swiglu",
        "kv_heads": 1,
        "windows": (None, 4),
        "tied_head": False,
        "use_bias": ("qkv", "feed_forward"),
    },
    "t5": {"activation": "relu2", "sinks": True, "score_cap": 1.5},
    "none": {"activation": "geglu", "norm_place": "parallel", "use_bias": ("out", "norm"), "qk_norm": "all_heads"},
}
"""Fields of a config for every position scheme; the other choices of a config are spread over them."""


def config(scheme: str = "rotary", **changes: Any) -> models.LMConfig:
    """A small config with this position scheme."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "context": CONTEXT,
        "width": 16,
        "depth": 2,
        "num_heads": 4,
        "ff_size": 24,
    }
    return models.LMConfig(**sizes | {"position": scheme} | SCHEMES[scheme] | changes)


def model(scheme: str = "rotary", seed: int = 0, **changes: Any) -> models.TransformerLM:
    """A model with random parameters, norms and biases included, and logits of order one."""
    return filled(lambda: models.create(config(scheme, **changes)), seed)


def filled(make: Callable[[], Any], seed: int = 0) -> Any:
    """The module that `make` makes, abstractly evaluated and filled with random parameters."""
    rng, abstract = np.random.default_rng(seed), jax.eval_shape(make)

    def fill(path: Any, x: jax.ShapeDtypeStruct) -> jax.Array:
        names = [getattr(entry, "name", None) for entry in path]
        numbers = rng.standard_normal(x.shape)
        if "kernel" in names:
            numbers /= x.shape[-2] ** 0.5
        elif "scale" in names:
            numbers = 1 + 0.3 * numbers
        else:
            numbers *= 0.5
        return jnp.asarray(numbers.astype(x.dtype))

    return jax.tree_util.tree_map_with_path(fill, abstract)


def tokens(*shape: int, seed: int = 0) -> jax.Array:
    """Random tokens of this shape."""
    return jnp.asarray(np.random.default_rng(seed).integers(0, VOCABULARY, shape), jnp.int32)


def assert_trees_close(tree: Any, expected: Any, **tolerance: float) -> None:
    """Assert that the structures are equal and every leaf is within the tolerance (exactly equal without one)."""
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True):
        name = jax.tree_util.keystr(path)
        if tolerance:
            np.testing.assert_allclose(x, y, **tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(x, y, err_msg=name)
