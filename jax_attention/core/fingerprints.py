"""Fingerprints of files: a digest of everything, and one of a few blocks that takes milliseconds for any size."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

BLOCKS, BLOCK_BYTES = 64, 4096
"""Blocks that `sample` reads: the first, the last, and others at equal distances; one page of the file system each."""


def fingerprint(path: Path) -> dict[str, Any]:
    """Size, SHA-256 of the whole file, and SHA-256 of its sampled blocks."""
    with open(path, "rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest()
    return {**sample(path), "sha256": whole}


def sample(path: Path) -> dict[str, Any]:
    """Size, and SHA-256 of `BLOCKS` blocks: another file of the same size differs in one of them almost surely.

    A few changed bytes may lie between the blocks; `fingerprint` finds those.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        last = max(size - BLOCK_BYTES, 0)
        for offset in sorted({last * i // (BLOCKS - 1) for i in range(BLOCKS)}):
            file.seek(offset)
            digest.update(file.read(BLOCK_BYTES))
    return {"bytes": size, "blocks": digest.hexdigest()}
