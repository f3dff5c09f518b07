"""Updates that are not finite are skipped, and too many in a row stop the run with an error."""

from __future__ import annotations

import numpy as np
import pytest

from jax_attention.training.checkpoints import Checkpoints
from jax_attention.training.loop import TrainingDiverged, fit
from jax_attention.training.metrics import MetricsFile, read_metrics
from tests.support.bigram import Text, bits, config, make


class Poisoned(Text):
    """Text with infinite weights in some steps, which make the loss infinite or NaN."""

    def __init__(self, steps):
        super().__init__()
        self.infinite = set(steps)

    def batch(self, seed, step, batch_size):
        batch = super().batch(seed, step, batch_size)
        batch.weights[...] = np.inf if step in self.infinite else 1
        return batch


def test_nonfinite_steps_in_a_row_stop_the_run_with_step_and_loss(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    with (
        MetricsFile(tmp_path / "m.jsonl") as metrics,
        pytest.raises(
            TrainingDiverged,
            match=r"got 3 in a row .*, the last at step 8 with loss nan.* of step 4. Start again with .*ignore_index=",
        ),
    ):
        fit(
            *make(),
            Poisoned(range(5, 30)),
            config(steps=30, checkpoint_every=4, stop_after=3, log_every=100),
            checkpoints=checkpoints,
            writers=[metrics],
        )
    # The run stops before the checkpoint of step 8: none has a diverged state.
    assert checkpoints.latest == 4
    assert [(x["step"], x["loss"]) for x in read_metrics(tmp_path / "m.jsonl")] == [(8, None)]


def test_nonfinite_steps_that_are_not_in_a_row_are_skipped():
    result = fit(*make(), Poisoned({1, 2, 4, 5}), config(steps=7, stop_after=3))
    assert int(result.state.step) == 7
    assert all(np.isfinite(leaf.view(np.float32)).all() for leaf in bits(result.state.model))


def test_nonfinite_steps_are_counted_across_a_resumption():
    state, step = make()
    source = Poisoned(range(1, 9))
    state = fit(state, step, source, config(steps=3, stop_after=3)).state
    with pytest.raises(TrainingDiverged, match="got 3 in a row that are not, the last at step 4 "):
        fit(state, step, source, config(steps=9, stop_after=3))


def test_a_step_that_does_not_count_skipped_updates_is_stopped_by_its_loss():
    state, step = make()

    def plain(state, batch):
        state, metrics = step(state, batch)
        return state, {"loss": metrics["loss"]}

    with pytest.raises(TrainingDiverged, match=r"got 2 in a row .* step 4 .*gradient norm unknown.* Start again with"):
        fit(state, plain, Poisoned({2, 3}), config(stop_after=2))
