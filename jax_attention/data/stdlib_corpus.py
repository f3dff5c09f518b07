"""The default corpus: the source files of the running Python's standard library. Real text, on every machine."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.data.documents import Document, decode_utf8
from jax_attention.data.split import name_hash

LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"})
"""Folders of other people's packages, of tests (those of lib2to3 hold broken sources) and of caches."""
GENERATED = "_sysconfigdata"
"""Files whose names begin so describe the machine that built Python."""


def standard_library_corpus(max_bytes: int | None = None) -> list[Document]:
    """The `.py` files of the running Python's standard library, in the order of their paths.

        documents = { path: text  |  path in stdlib, no test, no installed package, valid UTF-8, not empty }

    `split_documents` parts them into training and held-out files. The files, and so all figures, differ a little from
    one version of Python to the next.

    Args:
        max_bytes: at most so many bytes, made of whole files taken in the order of a hash of their paths; None takes
            all files.

    Returns:
        A list of `Document`, named by their paths inside the library.

    Raises:
        ValueError: if no file is small enough for `max_bytes`.
        FileNotFoundError: if this Python has no sources on the disk.
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
    found = [(path, path.relative_to(root).as_posix(), path.stat().st_size) for path in _sources(root)]
    if not found:
        raise FileNotFoundError(
            f"standard_library_corpus: expected the sources of Python below {str(root)!r}, got no .py file. "
            "Name files of your own."
        )
    if max_bytes is not None:
        found = _within(found, max_bytes)
    documents = [_read(path, name) for path, name, _ in sorted(found, key=lambda entry: entry[1])]
    return [document for document in documents if document is not None and document.text]


def _sources(root: Path) -> list[Path]:
    files = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in LEFT_OUT]
        chosen = [name for name in names if name.endswith(".py") and not name.startswith(GENERATED)]
        files += [Path(folder, name) for name in chosen]
    return [path for path in files if path.is_file()]


def _within(found: list[tuple[Path, str, int]], max_bytes: int) -> list[tuple[Path, str, int]]:
    taken, total = [], 0
    for entry in sorted(found, key=lambda entry: name_hash(entry[1])):
        if 0 < entry[2] <= max_bytes - total:
            taken.append(entry)
            total += entry[2]
    fail_unless(len(taken) > 0, f"max_bytes: expected room for at least one file, got {max_bytes}. Try 1_000_000.")
    return taken


def _read(path: Path, name: str) -> Document | None:
    """None for a source in another encoding: a few old modules declare one."""
    try:
        return Document(name, decode_utf8(path.read_bytes(), name))
    except ValueError:
        return None
