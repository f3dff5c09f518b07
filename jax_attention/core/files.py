"""Atomic file writes: a file is written under a temporary name, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that must not exist yet; its folder is created if need be. See `replaced_file`."""
    _refuse_to_overwrite(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as file:
        yield file
        _refuse_to_overwrite(path)  # another process may have written it in the meantime


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file or replace one: `path` changes only if the block ends without an error."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # otherwise a crash soon after the rename could leave an empty file
        os.replace(partial, path)
    except OSError as error:
        # Writing to an open file raises an error without a name, and the temporary name would say nothing to a user.
        if error.filename in (None, str(partial)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        partial.unlink(missing_ok=True)


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise FileExistsError(
            f"path: expected a new file, got {str(path)!r}, which exists. Delete it, or name another."
        )
