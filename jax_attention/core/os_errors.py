"""Errors of the operating system in words: the file, what was expected, what came, the cure."""

from __future__ import annotations

import errno
import os
import re

from jax_attention.core.text import quote

FULL = ("room on the disk", "a full disk", "Free some space, or choose another disk.")
PERMISSION = (
    "permission to read or write it",
    "none",
    "Change its permissions (chmod, chown), or choose another path.",
)
OPEN_FILES = ("room for one more open file", "too many open files", "Raise the limit: ulimit -n 4096.")

WORDS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: ("room within the disk quota", "a quota that is used up", FULL[2]),
    errno.EFBIG: ("a file within the size limit", "one that would be larger", "Raise the limit: ulimit -f unlimited."),
    errno.EMFILE: OPEN_FILES,
    errno.ENFILE: OPEN_FILES,
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.ENOENT: ("a file or folder", "none of this name", "Check the path."),
    errno.ENOTDIR: ("folders in all parts of the path but the last", "a file among them", "Check the path."),
    errno.EISDIR: ("a file", "a folder", "Name a file in it."),
    errno.EEXIST: ("a path that does not exist yet", "one that exists", "Delete it, or choose another."),
    errno.ENOTEMPTY: ("an empty folder", "one that holds something", "Choose another."),
    errno.ENAMETOOLONG: ("a shorter name", "one that is longer than the file system allows", "Shorten it."),
    errno.ELOOP: ("a path that ends somewhere", "symbolic links in a circle", "Mend the links."),
    errno.EROFS: ("a file system that can be written", "a read-only one", "Choose a folder on another disk."),
    errno.EIO: ("a device that works", "an input/output error", "Look at the disk: dmesg."),
    errno.ESTALE: ("a file that its server still has", "one that is gone", "Mount the file system again."),
    errno.EPIPE: ("a reader", "one that went away", "Write to a file instead."),
    errno.EBADF: ("an open file", "a closed one", "Leave it open."),
    errno.ENOMEM: ("free memory", "none", "Close other programs."),
}


def describe_os_error(error: OSError) -> str:
    """The error in words, without its number; a message of this library stays as it is.

    >>> describe_os_error(OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl"))
    "'metrics.jsonl': expected room on the disk, got a full disk. Free some space, or choose another disk."
    """
    if error.errno is None:
        return str(error)
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
    name = quote(name, 200) if name else "file"
    if error.errno not in WORDS:
        return f"{name}: {error.strerror}."
    expected, got, cure = WORDS[error.errno]
    return f"{name}: expected {expected}, got {got}. {cure}"


def find_os_error(text: str) -> OSError | None:
    """The error of the operating system that another library's message ends with or quotes, and its file, if any.

    >>> describe_os_error(find_os_error('Error writing "/run/7": Too many open files [spec={}]'))
    "'/run/7': expected room for one more open file, got too many open files. Raise the limit: ulimit -n 4096."
    """
    number = next((number for number in WORDS if f": {os.strerror(number)}" in text), None)
    path = re.search(r'"(/[^"\n]*)"', text)
    return None if number is None else OSError(number, os.strerror(number), path[1] if path else None)
