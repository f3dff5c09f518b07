"""What every experiment must leave in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n"
KEYS = ["config", "seeds", "numbers", "seconds", "command", "versions", "device"]


def left_behind(folder: Path, *pictures: str) -> dict[str, Any]:
    """A whole results.json and exactly these pictures; returns the numbers."""
    found = sorted(path.name for path in folder.iterdir())
    assert found == sorted(["results.json", *pictures])
    for name in pictures:
        assert (folder / name).read_bytes().startswith(PNG)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert list(results) == KEYS
    assert results["seconds"] > 0
    return results["numbers"]
