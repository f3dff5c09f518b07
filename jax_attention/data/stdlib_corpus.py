"""The default corpus: source files of Python's standard library, real text that every machine has."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.data.documents import Document, decode_utf8
from jax_attention.data.split import name_hash

SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"})
"""Folders of installed packages, of tests (those of lib2to3 are broken on purpose), of idlelib and of caches."""
GENERATED_PREFIX = "_sysconfigdata"
"""Prefix of generated files, which describe the machine that built Python."""


def standard_library_corpus(max_bytes: int | None = None) -> list[Document]:
    """Read the `.py` files of the running Python's standard library, sorted by path.

        documents = { path: text  |  path in stdlib, no test, no installed package, valid UTF-8, not empty }

    `split_documents` splits them into training and held-out files. The files, and so all losses, differ a little
    between versions of Python.

    Args:
        max_bytes: upper bound on the bytes of all files together. Whole files are taken in the order of a hash of their
            paths, as long as they fit. None takes all files.

    Returns:
        A list of `Document`, named by their paths inside the library.

    Raises:
        ValueError: if no file is small enough for `max_bytes`.
        FileNotFoundError: if this Python has no sources on disk.
        TypeError: if `max_bytes` is not an int.

    Example:
        >>> from jax_attention import data
        >>> documents = data.standard_library_corpus(max_bytes=100_000)
        >>> 0 < sum(len(document.text) for document in documents) <= 100_000
        True

    Reference:
        The Python Standard Library, https://docs.python.org/3/library/.
    """
    if max_bytes is not None:
        check_int("max_bytes", max_bytes, 1, "None takes all files.")
    root = Path(sysconfig.get_path("stdlib"))
    files = [(path, path.relative_to(root).as_posix(), path.stat().st_size) for path in _source_files(root)]
    if not files:
        raise FileNotFoundError(
            f"standard_library_corpus: expected the sources of Python below {str(root)!r}, got no .py file. "
            "Pass files of your own to read_documents."
        )
    if max_bytes is not None:
        files = _choose_within(files, max_bytes)
    documents = [_read_utf8(path, name) for path, name, _ in sorted(files, key=lambda file: file[1])]
    return [document for document in documents if document is not None and document.text]


def _source_files(root: Path) -> list[Path]:
    files = []
    for folder, subfolders, names in os.walk(root):
        # Changed in place, so that os.walk does not enter the skipped folders.
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS]
        chosen = [name for name in names if name.endswith(".py") and not name.startswith(GENERATED_PREFIX)]
        files += [Path(folder, name) for name in chosen]
    return [path for path in files if path.is_file()]


def _choose_within(files: list[tuple[Path, str, int]], max_bytes: int) -> list[tuple[Path, str, int]]:
    """Files of at most `max_bytes` together, chosen by a hash of their names; files are (path, name, size)."""
    chosen, total = [], 0
    for file in sorted(files, key=lambda file: name_hash(file[1])):
        if 0 < file[2] <= max_bytes - total:
            chosen.append(file)
            total += file[2]
    fail_unless(len(chosen) > 0, f"max_bytes: expected room for at least one file, got {max_bytes}. Try 1_000_000.")
    return chosen


def _read_utf8(path: Path, name: str) -> Document | None:
    """The document, or None if the file is not UTF-8: a few old modules declare another encoding."""
    try:
        return Document(name, decode_utf8(path.read_bytes(), name))
    except ValueError:
        return None
