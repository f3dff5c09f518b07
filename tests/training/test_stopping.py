"""Signals end a run in order: the step is finished and saved, and the handlers are restored."""

from __future__ import annotations

import io
import os
import signal
import threading

import jax.numpy as jnp
import pytest

from jax_attention.training.checkpoints import Checkpoints
from jax_attention.training.evaluation import make_evaluate
from jax_attention.training.loop import fit
from jax_attention.training.losses import Losses
from jax_attention.training.metrics import MetricsFile, read_metrics
from jax_attention.training.progress import progress
from jax_attention.training.signals import StopSignals
from tests.support.bigram import Text, assert_same_bits, config, make

HANDLERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
main_thread_only = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread only"
)


@pytest.fixture(autouse=True)
def default_handlers():
    """Restore the default handlers: a shell in the background ignores SIGINT, and `nohup` ignores SIGHUP."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    ignored = [n for n in HANDLERS if in_main_thread and signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


class Interrupting(Text):
    """Text that sends signals to this process while it makes the batches of some steps."""

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
        result = fit(
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
    assert (result.stopped, int(result.state.step), checkpoints.steps) == (name, 7, [4, 7])
    assert [x["step"] for x in read_metrics(tmp_path / "m.jsonl")] == list(range(1, 8))
    assert out.getvalue().splitlines()[-1] == f"{name}: stopped after step 7 of 10; saved {tmp_path}/c/7."
    assert [signal.getsignal(n) for n in HANDLERS] == before
    assert_same_bits(checkpoints.restore(like=result.state), result.state)


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
def test_a_signal_during_the_last_step_leaves_out_the_last_evaluation():
    """No older evaluation is returned in its place."""
    source, every_two = Interrupting({2: [signal.SIGTERM]}), config(steps=3, evaluate_every=2)
    result = fit(*make(), source, every_two, evaluate=lambda model: {"loss": 1.0})
    assert (result.stopped, int(result.state.step), result.evaluation) == ("SIGTERM", 3, None)


def test_a_sample_that_fails_does_not_lose_the_checkpoint(tmp_path):
    def fail(model):
        raise RuntimeError("no sample")

    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(RuntimeError, match="no sample"):
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
    before, unchanged = [signal.getsignal(n) for n in HANDLERS], []

    class Source(Text):
        def batch(self, seed, step, batch_size):
            unchanged.append([signal.getsignal(n) for n in HANDLERS] == before)
            return super().batch(seed, step, batch_size)

    thread = threading.Thread(target=lambda: fit(*make(), Source(), config(steps=2)))
    thread.start()
    thread.join()
    assert unchanged == [True, True]


@main_thread_only
def test_a_signal_gives_up_a_running_evaluation(tmp_path):
    """The step is saved without an evaluation; batches after the signal are not evaluated."""
    evaluated = []

    class Split:
        def evaluation_batches(self, batch_size):
            for index in range(100):
                evaluated.append(index)
                if index == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield jnp.ones((batch_size, 8))

    def two_nats(model, batch):
        return Losses(objective=2 * batch.sum(), nats=2 * batch.sum(), weight=batch.sum())

    evaluate = make_evaluate(Split(), 4, evaluate_step=two_nats)
    checkpoints = Checkpoints(tmp_path)
    result = fit(*make(), Text(), config(steps=9, evaluate_every=3), evaluate=evaluate, checkpoints=checkpoints)
    assert (result.stopped, int(result.state.step), result.evaluation) == ("SIGTERM", 3, None)
    assert checkpoints.steps == [3]
    assert evaluated == [0, 1, 2]


def test_save_minutes_saves_between_the_steps_of_checkpoint_every(tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 25))
    monkeypatch.setattr("jax_attention.training.loop.time.monotonic", lambda: float(next(clock)))
    checkpoints = Checkpoints(tmp_path, keep=9)
    fit(*make(), Text(), config(steps=8, checkpoint_every=0, save_minutes=1.0), checkpoints=checkpoints)
    assert checkpoints.steps[-1] == 8
    assert 1 < len(checkpoints.steps) < 8
    plain = fit(*make(), Text(), config(steps=8))
    assert_same_bits(checkpoints.restore(like=plain.state), plain.state)
