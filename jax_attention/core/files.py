"""A file appears whole or not at all: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a path at which nothing stands yet, its folder made if need be; see `replaced_file`."""
    _refuse_to_overwrite(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as file:
        yield file
        _refuse_to_overwrite(path)


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing. It stands there when the block ends well; otherwise what stood there stays."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise FileExistsError(
            f"path: expected a new file, got {str(path)!r}, which exists. Delete it, or name another."
        )
