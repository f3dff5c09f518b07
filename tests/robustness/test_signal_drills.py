"""Signals to the real command: the status, the one line, the checkpoint, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jax_attention import training
from tests.cli.quick_run import QUICK, TEXT
from tests.robustness.test_crash_drills import numbers

LAUNCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, getattr(signal, sys.argv.pop(1)))
from jax_attention_command import main
main()
"""
"""What the installed `jax-attention` runs, after handlers of a terminal: tests in the background ignore SIGINT."""
OPTIONS = [*QUICK, "--sample-tokens", "0"]
ENDLESS = [*OPTIONS, "--steps", "1000000", "--evaluate-every", "0", "--checkpoint-every", "200"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "fox.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def start(cache, *arguments, hangup="SIG_DFL"):
    """The command in a process of its own."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, hangup, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for_checkpoint(folder, process):
    until = time.monotonic() + 120
    while not any((folder / "checkpoints").glob("[0-9]*/_CHECKPOINT_METADATA")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def wait_for_handlers(process):
    """Wait until the process handles SIGTERM, the first thing that it does."""
    until, caught = time.monotonic() + 60, 0
    while not caught & (1 << (signal.SIGTERM - 1)):
        assert time.monotonic() < until
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
        time.sleep(0.001)


def end(process):
    """Printed text, error text, and the seconds to the end."""
    began = time.monotonic()
    out, error = process.communicate(timeout=120)
    assert "Traceback" not in out + error
    return out, error, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_one_signal_saves_and_ends_with_its_status(text, cache, tmp_path, name):
    out = tmp_path / "run"
    process = start(cache, "train", text, "--out", out, *ENDLESS)
    wait_for_checkpoint(out, process)
    process.send_signal(getattr(signal, name))
    printed, error, _ = end(process)
    assert process.returncode == 128 + getattr(signal, name)
    latest = training.Checkpoints(out / "checkpoints").latest
    assert f"{name}: stopped after step {latest} of 1000000; saved {out}/checkpoints/{latest}." in printed
    assert printed.splitlines()[-1] == f"continue with: jax-attention train --resume --out {out}"
    assert error == ""


@pytest.mark.slow
def test_a_second_signal_ends_at_once(text, cache, tmp_path):
    out = tmp_path / "run"
    process = start(cache, "train", text, "--out", out, *ENDLESS)
    wait_for_checkpoint(out, process)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error, seconds = end(process)
    assert process.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)  # the save may have been faster
    assert error in ("jax-attention: SIGINT: ended at once\n", "")
    assert seconds < 10


@pytest.mark.slow
def test_a_hangup_that_was_ignored_stays_ignored(text, cache, tmp_path):
    """`nohup` starts a program so."""
    out = tmp_path / "run"
    process = start(cache, "train", text, "--out", out, *ENDLESS, hangup="SIG_IGN")
    wait_for_checkpoint(out, process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    end(process)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.5])
def test_a_signal_during_imports_is_one_line(text, cache, tmp_path, delay):
    process = start(cache, "train", text, "--out", tmp_path / "run", *ENDLESS)
    wait_for_handlers(process)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    out, error, _ = end(process)
    assert (process.returncode, out) == (128 + signal.SIGINT, "")
    assert error == "jax-attention: SIGINT: ended at once\n"
    assert list(tmp_path.iterdir()) == []


def test_a_signal_ends_the_process_while_native_code_runs():
    """Handlers of Python wait for the main thread, which XLA may hold for minutes; here a long hash does."""
    script = "import hashlib; from jax_attention_command import watch_signals; watch_signals(); print(flush=True)\n"
    script += "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        try:
            _, error = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, error) == (128 + signal.SIGTERM, "jax-attention: SIGTERM: ended at once\n")


@pytest.mark.long
def test_forty_kills_at_random_moments(text, cache, tmp_path):
    """The storage library's own calls are hit here. Each run ends at the numbers of the unbroken one."""
    options = [*OPTIONS, "--checkpoint-every", "1", "--evaluate-every", "3", "--keep", "2"]
    whole = tmp_path / "whole"
    process = start(cache, "train", text, "--out", whole, *options)
    began = time.monotonic()
    assert end(process)[1] == ""
    duration, expected = time.monotonic() - began, numbers(whole)
    rng = random.Random(0)
    for _ in range(40):
        out = tmp_path / "run"
        process = start(cache, "train", text, "--out", out, *options)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may have ended: the first run was slower
            process.wait(rng.uniform(0.3, 1.0) * duration)
        process.kill()
        process.communicate()
        command = ["--resume"] if (out / "config.json").is_file() else [text, *options]
        process = start(cache, "train", *command, "--out", out)
        _, error, _ = end(process)
        assert (process.returncode, error) == (0, "")
        assert numbers(out) == expected
        shutil.rmtree(out)


@pytest.mark.long
def test_forty_signals_at_random_moments(text, cache, tmp_path):
    """One or two, of all kinds: a status of 128 + n, at most one line of error, and a run that goes on."""
    rng = random.Random(1)
    for _ in range(40):
        out = tmp_path / "run"
        process = start(cache, "train", text, "--out", out, *ENDLESS)
        wait_for_handlers(process)
        time.sleep(rng.uniform(0, 12))
        sent = [rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]) for _ in range(rng.choice([1, 2]))]
        for number in sent:
            process.send_signal(number)
            time.sleep(rng.uniform(0, 0.1))
        _, error, seconds = end(process)
        assert process.returncode in [128 + number for number in sent]
        assert error.count("\n") <= 1
        assert seconds < 30
        if out.exists():
            process = start(cache, "train", "--resume", "--out", out)
            time.sleep(8)
            process.send_signal(signal.SIGTERM)
            assert end(process)[1] in ("", "jax-attention: SIGTERM: ended at once\n")
            shutil.rmtree(out)
