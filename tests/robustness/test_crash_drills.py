"""A run that is killed before or after any file-system call goes on and ends at the numbers of the unbroken run."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

from jax_attention import training
from tests.cli.quick_run import QUICK
from tests.support.tiers import slow

OPTIONS = [*QUICK, "--keep", "2", "--checkpoint-every", "2", "--evaluate-every", "2", "--sample-tokens", "0"]


@pytest.fixture(scope="module")
def unbroken(server):
    """The unbroken run, the calls that it makes, and its numbers."""
    out = server.folder / "unbroken"
    answer = server.run("train", server.folder / "fox.txt", "--out", out, *OPTIONS)
    assert answer["status"] == 0, answer["printed"]
    return answer["calls"], numbers(out)


def numbers(out):
    lines = training.read_metrics(out / "metrics.jsonl")
    assert len(lines) == len({(line["kind"], line["step"]) for line in lines}), "a step that is logged twice"
    losses = {(line["kind"], line["step"]): line["loss"] for line in lines if "loss" in line}
    return losses, json.loads((out / "results.json").read_text(encoding="utf-8"))


def drill(server, unbroken, kill_at):
    """Kill a training at a call, go on as its messages say, and compare."""
    out, (_, expected) = server.folder / f"run{kill_at}", unbroken
    start, resume = ["train", server.folder / "fox.txt", "--out", out, *OPTIONS], ["train", "--resume", "--out", out]
    killed = server.run(*start, kill_at=kill_at)
    assert killed["status"] == -signal.SIGKILL, killed
    command = resume if (out / "config.json").is_file() else start
    assert out.exists() == (out / "config.json").is_file(), "a folder without a config"
    answer = server.run(*command)
    assert answer["status"] == 0, answer["printed"]
    assert "Traceback" not in killed["printed"] + answer["printed"]
    assert numbers(out) == expected
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["4", "6"]
    assert [path.name for path in server.folder.iterdir() if path.name.startswith(f".run{kill_at}.")] == []
    shutil.rmtree(out)


@pytest.mark.parametrize("share", [0.5, *slow(0.1, 0.9)])
def test_killed_in_the_beginning_the_middle_and_the_end(server, unbroken, share):
    drill(server, unbroken, max(1, int(unbroken[0] * share)))


@pytest.mark.long
def test_killed_at_every_call(server, unbroken):
    for kill_at in range(1, unbroken[0] + 1):
        drill(server, unbroken, kill_at)


@pytest.mark.long
def test_a_resumption_killed_at_every_call(server, unbroken):
    """The run is killed in its middle, its resumption at a call, and then it goes on to the end."""
    calls, expected = unbroken
    first = server.folder / "first"
    start = ["train", server.folder / "fox.txt", "--out", first, *OPTIONS]
    assert server.run(*start, kill_at=int(calls * 0.6))["status"] == -signal.SIGKILL
    again = shutil.copytree(first, server.folder / "again")
    count = server.run("train", "--resume", "--out", again)["calls"]
    for kill_at in range(1, count + 1):
        shutil.rmtree(again)
        shutil.copytree(first, again)
        assert server.run("train", "--resume", "--out", again, kill_at=kill_at)["status"] == -signal.SIGKILL
        answer = server.run("train", "--resume", "--out", again)
        assert answer["status"] == 0, answer["printed"]
        assert numbers(again) == expected
