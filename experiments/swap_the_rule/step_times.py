"""Times of a training step of each variant, measured in the same rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments import measure, seed_training
from experiments.seed_training import TrainingConfig
from jax_attention import data, models, training


def step_seconds(
    configs: Mapping[str, models.LMConfig], corpus: data.Corpus, config: TrainingConfig, rounds: int
) -> dict[str, np.ndarray]:
    """Seconds of a step `[rounds]` of each variant; each takes one step in every round."""
    batch = jax.device_put(corpus.train.batch(0, 0, config.batch_size))
    steps = {name: compiled_step(model_config, config, batch) for name, model_config in configs.items()}
    return measure.time_interleaved(steps, rounds)


def compiled_step(model_config: models.LMConfig, config: TrainingConfig, batch: data.Batch) -> Callable[[], Any]:
    """One training step on this batch, jitted.

    The step takes a list of arrays, as `training.fit` does: flattening the module in Python would add to its time.
    """
    optimizer = seed_training.adam(config.learning_rate, config.steps)
    step = training.make_train_step(optimizer)
    state = training.init_state(models.create(model_config, 0), optimizer, rng=jax.random.key(0))
    arrays, structure = jax.tree.flatten(state)
    program = jax.jit(lambda arrays, batch: jax.tree.leaves(step(jax.tree.unflatten(structure, arrays), batch)[0]))
    return lambda: program(arrays, batch)
