"""One writer per folder: an advisory lock that the kernel releases when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import BinaryIO

from jax_attention.core.text import quote, quote_path

LOCK = "lock"
"""Name of the file that is locked. It stays in the folder: a deleted lock file could be locked twice."""
UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
"""Errors of file systems without locks, such as some network file systems."""


def _open_no_link(path: str, flags: int) -> int:
    """Open a file of the folder itself: the content of what a link leads to would be replaced."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


class FolderInUse(OSError):
    """Error for a folder that another process writes to; the message names its host and process."""


class FolderLock:
    """The right to write to a folder, until `release` or the end of the process.

    `flock` of one file in it, so that neither a crash nor a `kill -9` leaves the folder locked. Over NFS, Linux
    translates it into a lock of the server; where the file system has no locks, `is_supported` is False and nothing
    is locked.

    Args:
        folder: an existing folder.

    Raises:
        FolderInUse: if another process has the lock.
        OSError: if the lock file cannot be written.
    """

    def __init__(self, folder: Path):
        self.path, self.is_supported = folder / LOCK, True
        self._file: BinaryIO | None = open(self.path, "a+b", opener=_open_no_link)  # noqa: SIM115 - see `release`
        try:
            self._lock(folder)
        except BaseException:
            self.release()
            raise

    def _lock(self, folder: Path) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            self.is_supported = False
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                self.is_supported = False
                return
            self._file.seek(0)
            holder = self._file.read(200).decode("utf-8", "replace").strip() or "another process"
            raise FolderInUse(
                f"folder: expected one that no other process writes to, got {quote_path(folder)}, which "
                f"{quote(holder, 200)[1:-1]} uses. Wait for it, or stop it."
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._file.flush()

    def release(self) -> None:
        """Give up the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
