"""Compile time does not grow with depth of scanned blocks: a test, and as a script the table of docs/models.md."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jax_attention import models

TOKENS = jax.ShapeDtypeStruct((2, 32), jnp.int32)


def compile_seconds(depth: int, scan: bool, gradient: bool) -> float:
    """Seconds for tracing, lowering and compiling with empty caches; width and length hardly matter."""
    config = models.tiny(vocab_size=65, width=64, depth=depth, scan=scan)
    model = jax.eval_shape(lambda: models.create(config))
    forward = lambda model, tokens: model(tokens).logits.mean()  # noqa: E731
    jax.clear_caches()
    start = time.perf_counter()
    jax.jit(jax.value_and_grad(forward) if gradient else forward).lower(model, TOKENS).compile()
    return time.perf_counter() - start


def best_of(times: int, depth: int, scan: bool, gradient: bool) -> float:
    return min(compile_seconds(depth, scan, gradient) for _ in range(times))


@pytest.fixture
def no_cache_on_disk():
    """No compilation cache on disk, which may hold what another test compiled."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_48_scanned_layers_compile_like_2(gradient, no_cache_on_disk):
    """Compile time of deep unrolled models is jax#3596."""
    shallow, deep = (best_of(3, depth, True, gradient) for depth in (2, 48))
    assert deep <= 1.3 * shallow, f"2 layers: {shallow:.2f} s, 48 layers: {deep:.2f} s"


if __name__ == "__main__":
    for gradient in (False, True):
        for scan, depth in ((True, 2), (True, 48), (False, 2), (False, 12)):
            seconds = best_of(3, depth, scan, gradient)
            print(f"{'gradient' if gradient else 'forward':9} scan={scan!s:5} depth={depth:3} {seconds:6.2f} s")
