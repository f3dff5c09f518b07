"""Atomic writes: a file or folder is written under a temporary name, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jax_attention.core.folder_lock import LOCK, FolderLock


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
    partial = _partial(path)
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # otherwise a crash soon after the rename could leave an empty file
        os.replace(partial, path)
    except OSError as error:
        # Writing to an open file raises an error without a name, and the temporary name would say nothing to a user.
        if error.errno is not None and error.filename in (None, str(partial)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name next to `folder`, which appears when the block ends without an error.

        .NAME.PID.RANDOM.partial  ->  NAME

    `folder` must not exist, or be empty. What interrupted processes left next to it is removed first.

    Raises:
        FileExistsError: if the folder has content when the block ends: another process was faster.
    """
    folder = Path(os.path.realpath(folder))
    if folder == Path.cwd().resolve() or os.path.ismount(folder):
        raise OSError(
            f"folder: expected one that can be replaced, got {str(folder)!r}, the current folder or the root of a "
            "disk. Choose a folder in it."
        )
    _make_parents(folder.parent)
    for leftover in folder.parent.glob(".*.partial"):
        if _is_leftover(leftover) and not _is_in_use(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    partial = _partial(folder)
    partial.mkdir()
    try:
        with FolderLock(partial):
            yield partial
            for path in (*partial.rglob("*"), partial):
                _flush_to_disk(path)
            try:
                os.rename(partial, folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                raise FileExistsError(
                    f"folder: expected none or an empty one, got {str(folder)!r}, which another process filled in the "
                    "meantime. Choose another folder."
                ) from None
            _flush_to_disk(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_parents(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        folder.stat()  # raises for links in a circle
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def _is_leftover(path: Path) -> bool:
    """Whether `new_folder` made the path: by its name, and by the lock that is the first thing in it.

    A process that was killed before the lock left an empty folder.
    """
    named = re.fullmatch(r"\..+\.(\d+)\.[0-9a-f]{8}\.partial", path.name)
    if named is None or path.is_symlink() or not path.is_dir():
        return False
    return (path / LOCK).is_file() or not (any(path.iterdir()) or _is_running(int(named[1])))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def _is_in_use(folder: Path) -> bool:
    """Whether another process is filling the folder; True where that cannot be known."""
    try:
        with FolderLock(folder) as lock:
            return not lock.is_supported
    except OSError:
        return True


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")


def _flush_to_disk(path: Path) -> None:
    """Otherwise a crash of the machine soon after the renaming could leave empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise FileExistsError(
            f"path: expected a new file, got {str(path)!r}, which exists. Delete it, or name another."
        )
