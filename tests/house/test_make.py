"""What the Makefile would do on a machine where nothing is set up, without doing it."""

from __future__ import annotations

import subprocess
import tomllib

from tests.house.sources import ROOT


def planned(*arguments: str) -> str:
    """The commands that make would run with an environment that does not exist."""
    command = ["make", "--dry-run", "VENV=nothing/here", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.replace("\\\n", " ")


def installs(plan: str) -> list[list[str]]:
    """The words after `pip install` of each installation, without quotes."""
    lines = [line for line in plan.splitlines() if " install " in line]
    return [line.split(" install ")[1].replace("'", "").split() for line in lines]


def test_pytorch_comes_from_the_index_that_is_asked_for():
    (torch,) = [words for words in installs(planned("test", "TORCH_INDEX=https://example.org/cpu")) if "torch" in words]
    assert torch[torch.index("--index-url") + 1] == "https://example.org/cpu"
    (torch,) = [words for words in installs(planned("test")) if "torch" in words]
    assert "--index-url" not in torch


def test_neither_the_core_nor_make_run_needs_pytorch():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["train"], *extras["viz"]]
    assert [name for name in needed if "torch" in name or "transformers" in name] == []
    assert [words[-1] for words in installs(planned("run"))] == [".", ".[train,viz]"]


def test_what_the_commands_leave_is_ignored_by_git():
    left = ["runs/tiny-20260101-000000/results.json", ".venv/bin/python", ".jax_cache/x", ".experiments/digits/x.png"]
    command = ["git", "check-ignore", *left]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split() == left
