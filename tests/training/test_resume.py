"""A run that is interrupted and resumed ends with the same bits as an uninterrupted one, also after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import jax
import pytest

from jax_attention import models
from jax_attention.training.checkpoints import Checkpoints
from jax_attention.training.loop import LoopConfig, fit
from jax_attention.training.metrics import MetricsFile, read_metrics
from jax_attention.training.optimizers import OptimizerConfig, make_optimizer
from jax_attention.training.step import init_state, make_train_step
from tests.support.bigram import Text, assert_same_bits, bits, make

N = 4


def language_model(seed=5):
    """A small Transformer with every kind of dropout, and its step with accumulation over two microbatches."""
    config = models.tiny(vocab_size=11, width=16, num_heads=2, context=8, depth=1, dropout=0.2, attention_dropout=0.2)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.01, warmup=2), steps=2 * N)
    state = init_state(models.create(config), optimizer, rng=jax.random.key(seed))
    return state, make_train_step(optimizer, accumulate=2)


def without_times(lines):
    return [
        {name: x for name, x in line.items() if name not in ("tokens_per_second", "seconds_left")} for line in lines
    ]


def bigram(seed=5):
    """A bigram model with a dropout of one half, and its step."""
    return make(2 * N, accumulate=2, seed=seed)


TRANSFORMER = pytest.param(language_model, Text(11, 8), id="transformer", marks=pytest.mark.slow)


@pytest.mark.parametrize(("make_model", "text"), [pytest.param(bigram, Text(), id="bigram"), TRANSFORMER])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit_with_dropout(make_model, text, tmp_path):
    def run(steps, name, resume=False, seed=5):
        state, step = make_model(seed)
        checkpoints = Checkpoints(tmp_path / name)
        if resume:
            state = checkpoints.restore(like=state)
        after = int(state.step) if resume else None
        config = LoopConfig(steps=steps, batch_size=4, log_every=1, checkpoint_every=N)
        with MetricsFile(tmp_path / f"{name}.jsonl", after=after) as metrics:
            return fit(state, step, text, config, checkpoints=checkpoints, writers=[metrics]).state

    uninterrupted = run(2 * N, "uninterrupted")
    half = run(N, "resumed")
    resumed = run(2 * N, "resumed", resume=True)
    assert_same_bits(resumed, uninterrupted)
    assert any((a != b).any() for a, b in zip(bits(half), bits(resumed), strict=True))
    expected_lines, lines = (read_metrics(tmp_path / f"{name}.jsonl") for name in ("uninterrupted", "resumed"))
    assert without_times(lines) == without_times(expected_lines)
    assert [line["step"] for line in lines] == list(range(1, 2 * N + 1))
    # Dropout was on: with another key the loss of the first step differs.
    run(1, "other", seed=6)
    assert read_metrics(tmp_path / "other.jsonl")[0]["loss"] != lines[0]["loss"]


# --- kill -9 ---------------------------------------------------------------------------------------------------------

STEPS = 40


def train(folder, pause=0.0):
    """Train as the command line does: resume from the newest checkpoint, if there is one.

    With a pause before each step it waits before the end: on a busy machine the kill may come late.
    """

    class Slow(Text):
        def batch(self, seed, step, batch_size):
            time.sleep(3600 if pause and step == STEPS - 5 else pause)
            return super().batch(seed, step, batch_size)

    state, step = make(STEPS)
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    after = checkpoints.latest
    if after is not None:
        state = checkpoints.restore(like=state)
    config = LoopConfig(steps=STEPS, batch_size=4, log_every=1, checkpoint_every=5)
    with MetricsFile(folder / "metrics.jsonl", after=after) as metrics:
        return after, fit(state, step, Slow(), config, checkpoints=checkpoints, writers=[metrics]).state


PATIENCE = 600
"""Seconds for the process to start and train: far more than needed, since other tests may load the machine."""
VICTIM = """
import pathlib, sys
from tests.training.test_resume import train
train(pathlib.Path(sys.argv[1]), pause=0.05)
"""


def count_lines(folder):
    path = folder / "metrics.jsonl"
    return len(read_metrics(path)) if path.exists() else 0


@pytest.mark.slow
def test_kill_9_loses_nothing_beyond_the_last_checkpoint(tmp_path):
    folder = tmp_path / "victim"
    folder.mkdir()
    (tmp_path / "uninterrupted").mkdir()
    _, uninterrupted = train(tmp_path / "uninterrupted")
    command = [sys.executable, "-c", VICTIM, str(folder)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    victim = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    with victim:
        deadline = time.monotonic() + PATIENCE
        while count_lines(folder) < 13 and victim.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        victim.kill()
        errors = victim.stderr.read()
    assert victim.returncode == -signal.SIGKILL, errors[-2000:]
    lines = count_lines(folder)
    assert 13 <= lines < STEPS
    after, resumed = train(folder)
    # The checkpoint of the last multiple of 5 may have been incomplete; the one before it is never lost.
    assert after in (lines // 5 * 5, lines // 5 * 5 - 5)
    assert_same_bits(resumed, uninterrupted)
    assert [line["step"] for line in read_metrics(folder / "metrics.jsonl")] == list(range(1, STEPS + 1))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["35", "40"]


def test_a_checkpoint_of_another_model_is_refused_before_training(tmp_path):
    state, step = make()
    checkpoints = Checkpoints(tmp_path)
    fit(state, step, Text(), LoopConfig(steps=1, batch_size=4), checkpoints=checkpoints)
    with pytest.raises(ValueError, match=r"(?s)like: expected a checkpoint .*model/.*: expected .*, got nothing"):
        checkpoints.restore(like=jax.eval_shape(lambda: language_model()[0]))


def test_a_finished_run_that_is_resumed_deletes_what_a_kill_left(tmp_path):
    """Killed after its last save, it has nothing to train; its oldest checkpoint would stay for ever."""
    state, step = bigram()
    config = LoopConfig(steps=3, batch_size=4, checkpoint_every=1)
    last = fit(state, step, Text(), config, checkpoints=Checkpoints(tmp_path, keep=3)).state
    kept = Checkpoints(tmp_path, keep=2, best=None)
    assert kept.steps == [1, 2, 3]
    fit(last, step, Text(), config, checkpoints=kept)
    assert kept.steps == [2, 3]
