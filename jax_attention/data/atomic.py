"""A file appears whole or not at all: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing. It stands there when the block ends well, and is untouched when it does not."""
    refuse_to_overwrite(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        refuse_to_overwrite(path)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def refuse_to_overwrite(path: Path) -> None:
    """Raise if there is something at `path` already."""
    if path.exists():
        raise FileExistsError(
            f"path: expected a new file, got {str(path)!r}, which exists. Delete it, or name another."
        )
