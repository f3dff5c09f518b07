"""Evaluation: the loss on the whole of a validation split, each token predicted once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.training import parallel, vocabulary
from jax_attention.training.losses import Losses
from jax_attention.training.signals import raise_if_stopping
from jax_attention.training.step import evaluate_step

IN_FLIGHT = 4
"""Batches that are dispatched before the first of them is waited for."""


def make_evaluate(
    source: Any,
    batch_size: int,
    *,
    text_bytes: int | None = None,
    mesh: Mesh | None = None,
    evaluate_step: Callable[[Any, Any], Losses] = evaluate_step,
) -> Callable[[Any], dict[str, float]]:
    """Make a function that evaluates a model on all of `source`.

        loss = sum nats / sum weights,        bits_per_byte = sum nats / (ln 2 * text_bytes)

    A few batches are dispatched ahead, except on several devices of a CPU. One compiled program serves all of them
    if the source pads its last batch with rows of weight 0.

    Args:
        source: has `evaluation_batches(batch_size)`, which yields the split once.
        batch_size: rows of a batch, a multiple of the number of devices.
        text_bytes: length of the text of the split in UTF-8 bytes; None leaves bits per byte out.
        mesh: from `data_mesh`; all devices if None.
        evaluate_step: pure function `(model, batch) -> Losses`, sums over the batch.

    Returns:
        A function `evaluate(model) -> {"loss": ..., "bits_per_byte": ..., "tokens": ...}`, sums in float64.

    Raises:
        ValueError: if the batch does not divide over the devices, the mesh has no axis `data`, `text_bytes` is not
            positive, or (by the function) the split has nothing to predict, token ids that the model lacks, or the
            model is split over devices.
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
    replicated, rows = parallel.replicated(mesh), parallel.rows(mesh)

    @functools.cache
    def compiled(structure: Any) -> Callable:
        # The model is passed as a list of arrays: flattening an nnx module at every call costs milliseconds (loop.py).
        def sums(arrays: list[jax.Array], batch: Any) -> tuple[jax.Array, jax.Array]:
            losses = evaluate_step(jax.tree.unflatten(structure, arrays), batch)
            return losses.nats, losses.weight

        return jax.jit(sums, in_shardings=(replicated, rows))

    def evaluate(model: Any) -> dict[str, float]:
        parallel.check_whole("model", model)
        sizes = vocabulary.vocab_sizes(model)
        vocabulary.check_source(sizes, source)
        arrays, structure = jax.tree.flatten(model)
        with jax.set_mesh(mesh):
            step = compiled(structure)
            sums, wrong_target = [], None
            for batch in source.evaluation_batches(batch_size):
                raise_if_stopping()
                vocabulary.check_batch(sizes, batch)
                wrong_target = vocabulary.wrong_target(sizes, batch) if wrong_target is None else wrong_target
                sums.append(step(arrays, batch))
                # Overlapping programs with collectives can deadlock on the devices of one CPU. Elsewhere a few batches
                # are in flight: without a bound, a signal would be noticed only after all of them.
                in_flight = 0 if parallel.must_run_alone(mesh) else IN_FLIGHT
                if len(sums) > in_flight:
                    jax.block_until_ready(sums[-1 - in_flight])
            sums = jax.device_get(sums)
        # Added in float64 on the host: a float32 sum over a long split would lose the small batches.
        nats, tokens = (math.fsum(float(batch_sums[i]) for batch_sums in sums) for i in (0, 1))
        fail_unless(
            tokens > 0,
            "source: expected a split with at least one token to predict, got none. Give more validation text.",
        )
        # Only where the loss is NaN: an `evaluate_step` with ignore_index= may take such targets.
        fail_unless(
            wrong_target is None or not math.isnan(nats),
            f"targets: expected classes of the model, got {wrong_target}, and a loss of NaN. Give targets that must "
            f"not count weight 0, or evaluate_step=partial(language_model_loss, ignore_index={wrong_target}).",
        )
        metrics = {"loss": nats / tokens}
        if text_bytes is not None:
            metrics["bits_per_byte"] = nats / math.log(2) / text_bytes
        return metrics | {"tokens": tokens}

    return evaluate
