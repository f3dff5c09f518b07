"""How good is the model on the whole of a validation split, each token predicted once?"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.training import parallel
from jax_attention.training.losses import Losses
from jax_attention.training.step import evaluate_step


def make_evaluate(
    source: Any,
    batch_size: int,
    *,
    text_bytes: int | None = None,
    mesh: Mesh | None = None,
    evaluate_step: Callable[[Any, Any], Losses] = evaluate_step,
) -> Callable[[Any], dict[str, float]]:
    """A function from a model to its numbers on all of `source`.

        loss = sum nats / sum weights,        bits_per_byte = sum nats / (ln 2 * text_bytes)

    Batches are dispatched without waiting, except on several devices of a CPU. One compilation serves all of them,
    because the last batch is filled up with rows of weight 0.

    Args:
        source: has `evaluation_batches(batch_size)`, which goes through the split once.
        batch_size: rows of a batch, a multiple of the number of devices.
        text_bytes: UTF-8 bytes of the text of the split; None leaves bits per byte out.
        mesh: from `data_mesh`; all devices if None.
        evaluate_step: pure function `(model, batch) -> Losses`, sums over the batch.

    Returns:
        A function `evaluate(model) -> {"loss": ..., "bits_per_byte": ..., "tokens": ...}`, sums in float64.

    Raises:
        ValueError: if the batch does not divide over the devices, `text_bytes` is not positive, or (by the function)
            the split has nothing to predict.
        TypeError: if a number is not an int.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import training
        >>> class Source:
        ...     def evaluation_batches(self, batch_size):
        ...         yield jnp.ones((batch_size, 8))
        >>> def two_nats(model, batch):
        ...     return training.Losses(objective=2 * batch.sum(), nats=2 * batch.sum(), weight=batch.sum())
        >>> training.make_evaluate(Source(), 4, evaluate_step=two_nats)(model=None)
        {'loss': 2.0, 'tokens': 32.0}

    Reference:
        Graves (2013), "Generating sequences with recurrent neural networks", section 3, for bits per character.
    """
    mesh = parallel.data_mesh() if mesh is None else mesh
    parallel.check_divides(batch_size, mesh)
    if text_bytes is not None:
        check_int("text_bytes", text_bytes, 1, "It is the length of the split's text in UTF-8.")
    whole, rows = parallel.replicated(mesh), parallel.rows(mesh)

    @functools.cache
    def compiled(structure: Any) -> Callable:
        # On a list of arrays, for the reason that loop.py gives.
        def sums(arrays: list[jax.Array], batch: Any) -> tuple[jax.Array, jax.Array]:
            losses = evaluate_step(jax.tree.unflatten(structure, arrays), batch)
            return losses.nats, losses.weight

        return jax.jit(sums, in_shardings=(whole, rows))

    def evaluate(model: Any) -> dict[str, float]:
        arrays, structure = jax.tree.flatten(model)
        with jax.set_mesh(mesh):
            step = compiled(structure)
            sums = []
            for batch in source.evaluation_batches(batch_size):
                sums.append(step(arrays, batch))
                if parallel.must_run_alone(mesh):
                    jax.block_until_ready(sums[-1])
            pairs = jax.device_get(sums)
        nats, tokens = (math.fsum(float(pair[i]) for pair in pairs) for i in (0, 1))
        fail_unless(
            tokens > 0,
            "source: expected a split with at least one token to predict, got none. Give more validation text.",
        )
        found = {"loss": nats / tokens}
        if text_bytes is not None:
            found["bits_per_byte"] = nats / math.log(2) / text_bytes
        return found | {"tokens": tokens}

    return evaluate
