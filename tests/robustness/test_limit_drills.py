"""No room in a file, no more open files: one line with the file, the safe step and the command that goes on."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.cli.quick_run import QUICK
from tests.robustness.test_crash_drills import numbers
from tests.support.tiers import slow_except

OPTIONS = [*QUICK, "--width", "64", "--checkpoint-every", "2", "--evaluate-every", "2", "--sample-tokens", "0"]
LIMITS = {
    "tokens": ({"FSIZE": 2000}, "corpus/train.tokens': expected a file within the size limit", None),
    "checkpoint": ({"FSIZE": 30000}, "expected a file within the size limit", "No checkpoint is complete yet. Then"),
    "open files": ({"NOFILE": 20}, "expected room for one more open file", "No checkpoint is complete yet. Then"),
    "few open files": ({"NOFILE": 12}, "expected room for one more open file", "No checkpoint is complete yet. Then"),
}


@pytest.mark.parametrize("name", slow_except(["checkpoint"], LIMITS))
def test_a_limit_is_one_line_and_the_run_goes_on(server, name):
    limits, message, way_on = LIMITS[name]
    out = server.folder / "run"
    start = ["train", server.folder / "fox.txt", "--out", out, *OPTIONS]
    answer = server.run(*start, **limits)
    *_, line = answer["printed"].splitlines()
    assert answer["status"] == 1
    assert "Traceback" not in answer["printed"]
    assert line.startswith("jax-attention: ")
    assert message in line
    if way_on is None:
        assert not out.exists()
        return
    assert line.endswith(f"{way_on} continue with: jax-attention train --resume --out {out}")
    assert server.run("train", "--resume", "--out", out)["status"] == 0
    resumed = numbers(out)
    shutil.rmtree(out)
    assert server.run(*start)["status"] == 0
    assert numbers(out) == resumed
    shutil.rmtree(out)


@pytest.fixture
def small_disk(server):
    """A file system of its own that can be full; making one needs the rights of root."""
    folder = server.folder / "disk"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1800k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here: only root may")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on(server, small_disk):
    out = small_disk / "run"
    start = ["train", server.folder / "fox.txt", "--out", out, *OPTIONS, "--keep", "9", "--steps", "10"]
    answer = server.run(*start)
    *_, line = answer["printed"].splitlines()
    assert answer["status"] == 1, answer["printed"]
    assert "Traceback" not in answer["printed"]
    assert "expected room on the disk, got a full disk" in line
    assert line.endswith(f"continue with: jax-attention train --resume --out {out}")
    steps = [int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit()]
    assert f"The checkpoint of step {max(steps)} is complete" in line
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert server.run("train", "--resume", "--out", out)["status"] == 0
    assert server.run(*start[:3], server.folder / "whole", *start[4:])["status"] == 0
    assert numbers(out) == numbers(server.folder / "whole")
