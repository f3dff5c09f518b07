"""What the style forbids is not in the library, no file is long, and the package is typed and versioned."""

from __future__ import annotations

import re
import tomllib

import pytest

import jax_attention
from tests.house.sources import LIBRARY, ROOT

FORBIDDEN = {
    "a private module of jax": r"jax\._src",
    "a large negative constant": r"-\s*\d+(?:\.\d*)?e\+?\d{1,}\b|-\s*\d{5,}|finfo\([^)]*\)\s*\.\s*min|nan_to_num",
    "a print": r"(?<![\w.])(?<!>>> )(?<!\.\.\.     )print\(",
    "a bare except": r"except\s*:",
    "structures that do not know their class (core/struct.py)": r"@.*register_dataclass|register_dataclass\(",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_library_is_free_of(what):
    pattern = re.compile(FORBIDDEN[what])
    lines = [(path.name, line) for path in LIBRARY for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) > 3000
    assert [(name, line) for name, line in lines if pattern.search(line)] == []


def test_forbidden_patterns_find_what_they_forbid():
    guilty = [
        "from jax._src import core",
        "x = -1e9",
        "jnp.finfo(dtype).min",
        "    print(x)",
        "except:",
        "y = -10000.0",
        "@jax.tree_util.register_dataclass",
    ]
    found = [[what for what, pattern in FORBIDDEN.items() if re.search(pattern, line)] for line in guilty]
    kinds = list(FORBIDDEN)
    assert found == [[kinds[0]], [kinds[1]], [kinds[1]], [kinds[2]], [kinds[3]], [kinds[1]], [kinds[4]]]


def test_no_file_is_long():
    assert {path.name: n for path in LIBRARY if (n := len(path.read_text(encoding="utf-8").splitlines())) > 350} == {}


def test_package_is_typed_and_versioned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (ROOT / "jax_attention" / "py.typed").exists()
    assert project["version"] == jax_attention.__version__
