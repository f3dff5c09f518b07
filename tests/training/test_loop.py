"""The training loop: intervals of its actions, one trace, and errors for wrong settings, steps and checkpoints."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from jax_attention.training.checkpoints import Checkpoints
from jax_attention.training.evaluation import make_evaluate
from jax_attention.training.loop import LoopConfig, fit
from jax_attention.training.progress import progress
from tests.support.bigram import B, Text, assert_same_bits, config, make


class Log:
    """A writer that records (kind, step); tests append other events to the same list."""

    def __init__(self):
        self.events = []

    def write(self, kind, step, values):
        self.events.append((kind, step))


def test_intervals_and_the_end(tmp_path):
    state, step = make()
    log, checkpoints = Log(), Checkpoints(tmp_path, keep=9)
    result = fit(
        state,
        step,
        Text(),
        config(log_every=4, evaluate_every=3, sample_every=6, checkpoint_every=6),
        evaluate=lambda model: {"loss": float(jnp.sum(model.kernel[...] ** 2))},
        sample=lambda model: "once upon",
        checkpoints=checkpoints,
        writers=[log],
    )
    by_kind = {kind: [step for k, step in log.events if k == kind] for kind in ("train", "evaluation", "sample")}
    assert by_kind == {"train": [4, 8, 10], "evaluation": [3, 6, 9, 10], "sample": [6, 10]}
    assert checkpoints.steps == [6, 10]
    assert (result.stopped, int(result.state.step)) == (None, 10)
    assert checkpoints.read(10)["metrics"] == result.evaluation
    assert_same_bits(checkpoints.restore(like=result.state), result.state)


def test_interval_0_means_only_at_the_end_and_no_callback_means_never(tmp_path):
    log, checkpoints = Log(), Checkpoints(tmp_path)
    fit(*make(), Text(), config(steps=3, log_every=0), checkpoints=checkpoints, writers=[log])
    assert (log.events, checkpoints.steps) == ([("train", 3)], [3])


def test_a_step_is_dispatched_before_the_metrics_of_the_one_before_are_read():
    log = Log()

    class Source(Text):
        def batch(self, seed, step, batch_size):
            log.events.append(("batch", step + 1))
            return super().batch(seed, step, batch_size)

    fit(*make(), Source(), config(steps=4), writers=[log])
    expected = [("batch", 1)]
    for step in (2, 3, 4):
        expected += [("batch", step), ("train", step - 1)]
    assert log.events == [*expected, ("train", 4)]


def test_one_trace_over_fifty_steps_with_all_actions(tmp_path):
    # jax/issues/3596, flax/issues/5158: steps that compiled at every call.
    traces = {"train": 0, "evaluate": 0}
    state, step = make(accumulate=2)

    def counted(state, batch):
        traces["train"] += 1
        return step(state, batch)

    def evaluate_step(model, batch):
        from jax_attention.training.step import evaluate_step

        traces["evaluate"] += 1
        return evaluate_step(model, batch)

    fit(
        state,
        counted,
        Text(),
        config(steps=50, evaluate_every=7, sample_every=11, checkpoint_every=20),
        evaluate=make_evaluate(Text(), B, evaluate_step=evaluate_step),
        sample=lambda model: str(model.kernel[0]),
        checkpoints=Checkpoints(tmp_path),
    )
    assert traces == {"train": 1, "evaluate": 1}


def test_the_display_shows_steps_evaluations_and_samples(tmp_path):
    out = io.StringIO()
    fit(
        *make(),
        Text(),
        config(steps=2),
        evaluate=lambda model: {"loss": 1.25, "bits_per_byte": 2.0},
        sample=lambda model: "To be",
        progress=progress(2, stream=out, every=0),
    )
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("step 1/2 | loss ")
    assert lines[1].startswith("step 2/2 | loss ")
    assert lines[2:] == ["step 2: validation loss 1.2500 | 2.000 bits/byte", "To be"]


def test_losses_are_those_of_the_jitted_step():
    """The loop changes no number: losses and state are those of calling the jitted step by hand."""
    state, step = make()
    losses, jitted = [], jax.jit(step)
    for n in range(5):
        state, metrics = jitted(state, Text().batch(0, n, B))
        losses.append(float(metrics["loss"]))

    class Losses:
        def write(self, kind, step, values):
            assert values["loss"] == losses.pop(0)

    result = fit(*make(), Text(), config(steps=5), writers=[Losses()])
    assert_same_bits(result.state, state)


def test_a_finished_run_is_not_changed(tmp_path):
    state, step = make()
    state = fit(state, step, Text(), config(steps=3)).state
    log = Log()
    again = fit(state, step, Text(), config(steps=3), writers=[log], checkpoints=Checkpoints(tmp_path))
    assert (log.events, again.stopped, again.evaluation, list(tmp_path.iterdir())) == ([], None, None, [])
    assert int(again.state.step) == 3


# --- Errors ----------------------------------------------------------------------------------------------------------


class State(NamedTuple):
    model: Any
    step: Any


class OtherState(NamedTuple):
    model: Any
    step: Any


def test_later_checkpoints_are_refused_before_training(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(6, {"w": jnp.ones(1)})
    state, step = make()
    with pytest.raises(FileExistsError, match=r"expected none beyond step 0, .*got \[6\].*Resume from 6"):
        fit(state, step, Text(), config(), checkpoints=checkpoints)
    with pytest.raises(ValueError, match=r"at most config.steps = 0, got 2"):
        fit(fit(state, step, Text(), config(steps=2)).state, step, Text(), config(steps=0))


def test_a_step_that_changes_the_structure_of_the_state_is_an_error():
    def to_bfloat16(state, batch):
        kernel = state.model["kernel"].astype(jnp.bfloat16)
        return State({"kernel": kernel}, state.step + 1), {"loss": batch.weights.sum()}

    state = State({"kernel": jnp.ones(2)}, jnp.zeros((), jnp.int32))
    with pytest.raises(ValueError, match=r"train_step: .*model/kernel: expected float32\[2\], got bfloat16\[2\]"):
        fit(state, to_bfloat16, Text(), config(steps=1))
    with pytest.raises(ValueError, match=r"train_step: expected a new state like the old one, .*static fields"):
        fit(state, lambda state, batch: (OtherState(*state), {"loss": batch.weights.sum()}), Text(), config(steps=1))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"steps": -1}, ValueError, "steps: expected an int >= 0, got -1"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an int >= 1, got 0"),
        ({"evaluate_every": 2.5}, TypeError, "evaluate_every: expected a Python int"),
        ({"stop_after": 0}, ValueError, "stop_after: expected an int >= 1, got 0"),
    ],
)
def test_wrong_configurations(changes, error, message):
    with pytest.raises(error, match=message):
        LoopConfig(**changes)
