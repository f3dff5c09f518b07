"""How long a training step of each variant takes, all of them in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments import learn, measure
from experiments.learn import Schooling
from jax_attention import data, models, training


def step_seconds(
    configs: Mapping[str, models.LMConfig], corpus: data.Corpus, schooling: Schooling, rounds: int
) -> dict[str, np.ndarray]:
    """Seconds of a step `[rounds]` of each; in every round each takes one step."""
    batch = jax.device_put(corpus.train.batch(0, 0, schooling.batch_size))
    return measure.interleaved(
        {name: compiled_step(config, schooling, batch) for name, config in configs.items()}, rounds
    )


def compiled_step(config: models.LMConfig, schooling: Schooling, batch: data.Batch) -> Callable[[], Any]:
    """One step, compiled; on a list of arrays, as `training.fit` does, to spare Python the module."""
    optimizer = learn.adam(schooling.learning_rate, schooling.steps)
    step = training.make_train_step(optimizer)
    state = training.init_state(models.create(config, 0), optimizer, rng=jax.random.key(0))
    arrays, structure = jax.tree.flatten(state)
    program = jax.jit(lambda arrays, batch: jax.tree.leaves(step(jax.tree.unflatten(structure, arrays), batch)[0]))
    return lambda: program(arrays, batch)
