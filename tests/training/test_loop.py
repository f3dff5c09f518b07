"""The loop: what happens when, one trace, the whole validation split, stopping on signals and on divergence."""

from __future__ import annotations

import io
import os
import signal
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention.training.checkpoints import Checkpoints
from jax_attention.training.evaluation import make_evaluate
from jax_attention.training.loop import LoopConfig, TrainingDiverged, fit
from jax_attention.training.metrics import MetricsFile, read_metrics
from jax_attention.training.progress import progress
from jax_attention.training.signals import StopSignals
from tests.tolerances import FORWARD
from tests.training.tiny import B, T, Text, assert_same_bits, bits, make


class State(NamedTuple):
    model: Any
    step: Any


class Other(NamedTuple):
    model: Any
    step: Any


class Log:
    """A writer that remembers; `events` can be shared with others."""

    def __init__(self):
        self.events = []

    def write(self, kind, step, values):
        self.events.append((kind, step))


def config(**changes):
    return LoopConfig(
        **{"steps": 10, "batch_size": B, "log_every": 1, "evaluate_every": 0, "checkpoint_every": 0} | changes
    )


# --- What happens when -----------------------------------------------------------------------------------------------


def test_intervals_and_the_end(tmp_path):
    state, step = make()
    log, checkpoints = Log(), Checkpoints(tmp_path, keep=9)
    done = fit(
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
    assert (done.stopped, int(done.state.step)) == (None, 10)
    assert checkpoints.read(10)["metrics"] == done.evaluation
    assert_same_bits(checkpoints.restore(like=done.state), done.state)


def test_zero_means_only_at_the_end_and_no_callback_means_never(tmp_path):
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


def test_one_trace_over_fifty_steps_with_everything_switched_on(tmp_path):
    # jax/issues/3596, flax/issues/5158: steps that compile again and again.
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


def test_the_display_says_what_happened(tmp_path):
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


def test_losses_fall_and_are_those_of_the_steps_alone():
    """The loop adds nothing: the same numbers as calling the jitted step by hand."""
    state, step = make()
    losses, jitted = [], jax.jit(step)
    for n in range(5):
        state, metrics = jitted(state, Text().batch(0, n, B))
        losses.append(float(metrics["loss"]))

    class Losses:
        def write(self, kind, step, values):
            assert values["loss"] == losses.pop(0)

    done = fit(*make(), Text(), config(steps=5), writers=[Losses()])
    assert_same_bits(done.state, state)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    state, step = make()
    state = fit(state, step, Text(), config(steps=3)).state
    log = Log()
    again = fit(state, step, Text(), config(steps=3), writers=[log], checkpoints=Checkpoints(tmp_path))
    assert (log.events, again.stopped, again.evaluation, list(tmp_path.iterdir())) == ([], None, None, [])
    assert int(again.state.step) == 3


# --- Evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [4, 16])
def test_evaluation_covers_the_whole_split_once(batch_size):
    state, _ = make()
    found = make_evaluate(Text(), batch_size, text_bytes=100)(state.model)
    table = np.asarray(state.model.embedding[...], np.float64) @ np.asarray(state.model.kernel[...], np.float64)
    (rows,) = Text().evaluation_batches(16)
    logits = table[rows.tokens]
    chosen = np.take_along_axis(logits, rows.targets[..., None], -1)[..., 0]
    nats = ((np.log(np.exp(logits).sum(-1)) - chosen) * rows.weights).sum()
    assert found["tokens"] == 10 * T + 2
    np.testing.assert_allclose(found["loss"], nats / found["tokens"], rtol=FORWARD["float32"])
    np.testing.assert_allclose(found["bits_per_byte"], nats / np.log(2) / 100, rtol=FORWARD["float32"])


def test_an_empty_split_is_an_error():
    class Empty:
        def evaluation_batches(self, batch_size):
            return iter(())

    with pytest.raises(ValueError, match="source: expected a split with at least one token to predict"):
        make_evaluate(Empty(), B)(make()[0].model)
    with pytest.raises(ValueError, match="text_bytes: expected an int >= 1, got 0"):
        make_evaluate(Text(), B, text_bytes=0)


# --- Stopping --------------------------------------------------------------------------------------------------------

HANDLERS = (signal.SIGTERM, signal.SIGINT)
main_thread_only = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread only"
)


@pytest.fixture(autouse=True)
def usual_interrupt():
    """A shell that starts the tests in the background makes them ignore SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)


class Interrupting(Text):
    """Sends signals to this process while given batches are made."""

    def __init__(self, signals):
        super().__init__()
        self.signals = signals

    def batch(self, seed, step, batch_size):
        for number in self.signals.get(step, ()):
            os.kill(os.getpid(), number)
        return super().batch(seed, step, batch_size)


@main_thread_only
@pytest.mark.parametrize("number", HANDLERS)
def test_a_signal_finishes_the_step_and_saves(tmp_path, number):
    before = [signal.getsignal(n) for n in HANDLERS]
    out, checkpoints = io.StringIO(), Checkpoints(tmp_path / "c")
    state, step = make()
    with MetricsFile(tmp_path / "m.jsonl") as metrics:
        done = fit(
            state,
            step,
            Interrupting({6: [number]}),
            config(checkpoint_every=4, evaluate_every=7),
            evaluate=lambda model: pytest.fail("a signal leaves no time for an evaluation"),
            checkpoints=checkpoints,
            writers=[metrics],
            progress=progress(10, stream=out, every=1000.0),
        )
    name = signal.Signals(number).name
    assert (done.stopped, int(done.state.step), checkpoints.steps) == (name, 7, [4, 7])
    assert [x["step"] for x in read_metrics(tmp_path / "m.jsonl")] == list(range(1, 8))
    assert out.getvalue().splitlines()[-1] == f"{name}: stopped after step 7 of 10; saved {tmp_path}/c/7."
    assert [signal.getsignal(n) for n in HANDLERS] == before
    assert_same_bits(checkpoints.restore(like=done.state), done.state)


@main_thread_only
def test_a_second_interrupt_aborts_at_once(tmp_path):
    before = [signal.getsignal(n) for n in HANDLERS]
    checkpoints = Checkpoints(tmp_path)
    source = Interrupting({5: [signal.SIGINT, signal.SIGINT]})
    with pytest.raises(KeyboardInterrupt):
        fit(*make(), source, config(checkpoint_every=4), checkpoints=checkpoints)
    assert checkpoints.steps == [4]
    assert [signal.getsignal(n) for n in HANDLERS] == before


@main_thread_only
def test_a_signal_during_the_last_step_is_no_early_stop():
    """But it leaves out the last evaluation, and no older one is given out for it."""
    source, every_two = Interrupting({2: [signal.SIGTERM]}), config(steps=3, evaluate_every=2)
    done = fit(*make(), source, every_two, evaluate=lambda model: {"loss": 1.0})
    assert (done.stopped, int(done.state.step), done.evaluation) == (None, 3, None)


def test_a_sample_that_fails_does_not_cost_the_checkpoint(tmp_path):
    def fail(model):
        raise RuntimeError("no words")

    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(RuntimeError, match="no words"):
        fit(*make(), Text(), config(steps=2), sample=fail, checkpoints=checkpoints)
    assert checkpoints.steps == [2]


@main_thread_only
def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.received is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_trains_without_handlers():
    before, found = [signal.getsignal(n) for n in HANDLERS], []

    class Source(Text):
        def batch(self, seed, step, batch_size):
            found.append([signal.getsignal(n) for n in HANDLERS] == before)
            return super().batch(seed, step, batch_size)

    thread = threading.Thread(target=lambda: fit(*make(), Source(), config(steps=2)))
    thread.start()
    thread.join()
    assert found == [True, True]


# --- Divergence ------------------------------------------------------------------------------------------------------


class Poisoned(Text):
    """Weights of infinity in given steps: a loss that is not finite."""

    def __init__(self, steps):
        super().__init__()
        self.bad = set(steps)

    def batch(self, seed, step, batch_size):
        batch = super().batch(seed, step, batch_size)
        batch.weights[...] = np.inf if step in self.bad else 1
        return batch


def test_bad_steps_in_a_row_stop_the_run_with_step_and_loss(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    with (
        MetricsFile(tmp_path / "m.jsonl") as metrics,
        pytest.raises(
            TrainingDiverged,
            match=r"got 3 in a row that are not, the last at step 8 with loss nan.* of step 4. Start again with",
        ),
    ):
        fit(
            *make(),
            Poisoned(range(5, 30)),
            config(steps=30, checkpoint_every=4, stop_after=3, log_every=100),
            checkpoints=checkpoints,
            writers=[metrics],
        )
    # The step before is being worked on when the metrics of this one are read: never a checkpoint of what diverged.
    assert checkpoints.latest == 4
    assert [(x["step"], x["loss"]) for x in read_metrics(tmp_path / "m.jsonl")] == [(8, None)]


def test_bad_steps_that_are_not_in_a_row_are_skipped():
    done = fit(*make(), Poisoned({1, 2, 4, 5}), config(steps=7, stop_after=3))
    assert int(done.state.step) == 7
    assert all(np.isfinite(leaf.view(np.float32)).all() for leaf in bits(done.state.model))


def test_bad_steps_are_counted_across_a_resumption():
    state, step = make()
    source = Poisoned(range(1, 9))
    state = fit(state, step, source, config(steps=3, stop_after=3)).state
    with pytest.raises(TrainingDiverged, match="got 3 in a row that are not, the last at step 4 "):
        fit(state, step, source, config(steps=9, stop_after=3))


def test_a_step_that_does_not_count_bad_updates_is_stopped_by_its_loss():
    state, step = make()

    def plain(state, batch):
        state, metrics = step(state, batch)
        return state, {"loss": metrics["loss"]}

    with pytest.raises(TrainingDiverged, match=r"got 2 in a row .* step 4 .*gradient norm unknown.* Start again with"):
        fit(state, plain, Poisoned({2, 3}), config(stop_after=2))


# --- Errors ----------------------------------------------------------------------------------------------------------


def test_checkpoints_ahead_are_found_before_training(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(6, {"w": jnp.ones(1)})
    state, step = make()
    with pytest.raises(FileExistsError, match=r"expected none beyond step 0, .*got \[6\].*Resume from 6"):
        fit(state, step, Text(), config(), checkpoints=checkpoints)
    with pytest.raises(ValueError, match=r"at most config.steps = 0, got 2"):
        fit(fit(state, step, Text(), config(steps=2)).state, step, Text(), config(steps=0))


def test_a_step_that_changes_the_state_s_form_is_an_error():
    def half(state, batch):
        kernel = state.model["kernel"].astype(jnp.bfloat16)
        return State({"kernel": kernel}, state.step + 1), {"loss": batch.weights.sum()}

    state = State({"kernel": jnp.ones(2)}, jnp.zeros((), jnp.int32))
    with pytest.raises(ValueError, match=r"train_step: .*model/kernel: expected float32\[2\], got bfloat16\[2\]"):
        fit(state, half, Text(), config(steps=1))
    with pytest.raises(ValueError, match=r"train_step: expected a new state like the old one, .*static fields"):
        fit(state, lambda state, batch: (Other(*state), {"loss": batch.weights.sum()}), Text(), config(steps=1))


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
