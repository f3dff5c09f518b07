"""A wheel built from the project installs with the core dependencies alone and runs the examples of the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.sources import ROOT
from tests.test_docs import read, sessions

RUN_README = """
import doctest, sys
import jax_attention
session = doctest.DocTestParser().get_doctest(open(sys.argv[1], encoding="utf-8").read(), {}, "README.md", None, 0)
result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(session)
print(f"{result.attempted} attempted, {result.failed} failed, {jax_attention.__file__}")
"""
OPTIONAL = ("matplotlib", "torch", "transformers", "tokenizers", "tyro")


def check_output(*command: object, folder: Path) -> str:
    """Standard output of a command that must succeed, run in `folder` without the settings of this process."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_wheel_runs_the_readme_with_the_core_dependencies_alone(tmp_path):
    """Needs a package index: it downloads the build backend, jax, flax, optax, chex and numpy."""
    check_output(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT, folder=ROOT
    )
    (wheel,) = tmp_path.glob("jax_attention-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listed = check_output("git", "ls-files", "jax_attention", "jax_attention_command.py", folder=ROOT).splitlines()
    assert packed == {name for name in listed if (ROOT / name).exists()}, "the library, all of it and nothing else"

    check_output(sys.executable, "-m", "venv", tmp_path / "env", folder=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    check_output(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, folder=tmp_path)
    names = check_output(python, "-m", "pip", "list", "--format=freeze", folder=tmp_path).lower()
    assert [name for name in OPTIONAL if re.search(rf"^{name}==", names, re.M)] == []

    examples = tmp_path / "examples.txt"
    examples.write_text("\n".join(sessions(read(ROOT / "README.md"))), encoding="utf-8")
    last = check_output(python, "-W", "error", "-c", RUN_README, examples, folder=tmp_path).splitlines()[-1]
    assert re.fullmatch(rf"[1-9]\d* attempted, 0 failed, {re.escape(str(tmp_path / 'env'))}\S+", last), last
