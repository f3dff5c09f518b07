"""Outputs of an experiment's command: files that its folder must hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n"
KEYS = ["config", "seeds", "numbers", "cpu_seconds", "command", "versions", "device"]


def read_numbers(folder: Path, *figures: str) -> dict[str, Any]:
    """Assert that a folder holds a complete results.json and exactly these figures; return its numbers."""
    files = sorted(path.name for path in folder.iterdir())
    assert files == sorted(["results.json", *figures])
    for name in figures:
        assert (folder / name).read_bytes().startswith(PNG)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert list(results) == KEYS
    assert results["cpu_seconds"] > 0
    return results["numbers"]
