"""Every Python file of the project, by the name of its module."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "jax_attention").rglob("*.py"))
HOUSE = ("jax_attention", "experiments", "benchmarks", "docs", "tests")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for top in HOUSE for path in sorted((ROOT / top).rglob("*.py"))}
