"""Reading documents (texts with names) from files, globs, folders or standard input."""

from __future__ import annotations

import glob
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.text import quote

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
Pathlike = str | os.PathLike


class Document(NamedTuple):
    """A text with a name.

    Args:
        name: the path relative to the folder or to the fixed part of the pattern that was read, with slashes; the
            file name of a single file; `<stdin>` for standard input.
        text: the whole text with its original line ends.

    Example:
        >>> from jax_attention import data
        >>> data.Document("note.txt", "hello").name
        'note.txt'
    """

    name: str
    text: str


def read_documents(
    paths: Pathlike | Iterable[Pathlike], *, suffixes: Sequence[str] = (".txt", ".md"), errors: str = "strict"
) -> list[Document]:
    """Read UTF-8 text from files, globs, folders or standard input.

        "book.txt"  one file          "texts/"   the files below it that end in one of `suffixes`
        "**/*.py"   a pattern         "-"        standard input

    Documents keep the order of `paths`; inside a folder or pattern, files are sorted by path. A file reached twice is
    read once. Hidden files are read only if a path or pattern names them. Line ends are kept; a byte order mark is
    dropped.

    Args:
        paths: one path or several.
        suffixes: suffixes of the files to read in folders; `("",)` takes every file.
        errors: "strict" refuses bytes that are not UTF-8; "replace" reads U+FFFD in their place.

    Returns:
        A list of `Document`.

    Raises:
        FileNotFoundError: if a path does not exist, or a pattern or folder holds no file.
        ValueError: if there are no paths, bytes are not UTF-8, or there is no text at all.
        TypeError: if an entry is neither a str nor a path object.

    Example:
        >>> import pathlib, tempfile
        >>> from jax_attention import data
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "poem.txt").write_text("静夜思", encoding="utf-8")
        >>> data.read_documents(folder)
        [Document(name='poem.txt', text='静夜思')]
    """
    fail_unless(
        errors in ("strict", "replace"),
        f"errors: expected 'strict' or 'replace', got {errors!r}. 'replace' reads U+FFFD in place of bad bytes.",
    )
    fail_unless(
        not isinstance(suffixes, str), f"suffixes: expected a tuple, got {suffixes!r}. One suffix is ({suffixes!r},)."
    )
    entries = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    fail_unless(len(entries) > 0, "paths: expected at least one file, folder, pattern or '-', got none.")
    documents = [_read(path, name, errors) for path, name in _unique(entries, tuple(suffixes))]
    fail_unless(
        any(document.text for document in documents),
        f"paths: expected text, got {len(documents)} empty document(s): {_some([d.name for d in documents])}. "
        "Name files that hold text.",
    )
    return documents


def decode_utf8(content: bytes, name: str, errors: str = "strict") -> str:
    """Decode UTF-8 and drop a byte order mark; the error names the place of the first bad byte."""
    start = len(BYTE_ORDER_MARK) if content.startswith(BYTE_ORDER_MARK) else 0
    try:
        return content[start:].decode("utf-8", errors)
    except UnicodeDecodeError as error:
        offset = start + error.start
    line = content.count(b"\n", 0, offset) + 1
    cure = "Convert the file to UTF-8, or pass errors='replace' to read U+FFFD in place of bad bytes."
    if content.startswith(UTF16_MARKS):
        cure = "It begins like UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`."
    raise ValueError(
        f"paths: expected UTF-8 text, got byte 0x{content[offset]:02X} at byte offset {offset}, line {line}, of "
        f"{name!r}. {cure}"
    )


# --- Finding and reading files ---------------------------------------------------------------------------------------


def _unique(entries: list[Pathlike], suffixes: tuple[str, ...]) -> Iterator[tuple[Path | None, str]]:
    """Each file once, with its document name; the path is None for standard input."""
    seen = set()
    for entry in entries:
        for path, name in _expand(entry, suffixes):
            identity = path and path.resolve()
            if identity not in seen:
                seen.add(identity)
                yield path, name


def _expand(entry: Pathlike, suffixes: tuple[str, ...]) -> list[tuple[Path | None, str]]:
    if not isinstance(entry, (str, os.PathLike)):
        raise TypeError(f"paths: expected paths, got {describe_array(entry)}. Pass a str or a pathlib.Path.")
    if entry == "-":
        return [(None, "<stdin>")]
    fail_unless(str(entry) != "", "paths: expected a path, got ''. '.' is the present folder.")
    path = Path(entry).expanduser()
    if path.is_dir():
        return _in_folder(path, suffixes)
    if path.exists():
        return [(path, path.name)]
    if glob.has_magic(str(path)):
        return _in_pattern(path)
    raise FileNotFoundError(
        f"paths: expected a file, a folder, a pattern or '-', got {str(entry)!r}, which does not exist. "
        f"Relative paths start at {str(Path.cwd())!r}."
    )


def _in_folder(folder: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, str]]:
    """Visible files below a folder with one of the suffixes, and their relative names."""
    named = [(path, path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    visible = [(path, name) for path, name in named if not any(part.startswith(".") for part in name.parts)]
    files = sorted((name.as_posix(), path) for path, name in visible if name.name.endswith(suffixes))
    if not files:
        existing = Counter(path.suffix or "(no suffix)" for path, _ in visible).most_common(5)
        raise FileNotFoundError(
            f"paths: expected files that end in {' or '.join(map(repr, suffixes))} below {str(folder)!r}, got "
            f"{', '.join(f'{n} {suffix}' for suffix, n in existing) or 'no files at all'}. Pass other suffixes=, or a "
            "pattern such as 'folder/**/*.txt'."
        )
    return [(path, name) for name, path in files]


def _in_pattern(pattern: Path) -> list[tuple[Path, str]]:
    """Files that match a pattern, and their names relative to the part of it before the first wildcard."""
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    files = [path for match in glob.glob(str(pattern), recursive=True) if (path := Path(match)).is_file()]
    if not files:
        raise FileNotFoundError(
            f"paths: expected a pattern that matches a file, got {str(pattern)!r}, which matches none. Relative "
            f"patterns start at {str(Path.cwd())!r}; '**' descends into folders; hidden files must be named."
        )
    return sorted(((path, path.relative_to(root).as_posix()) for path in files), key=lambda file: file[1])


def _read(path: Path | None, name: str, errors: str) -> Document:
    fail_unless(
        path is not None or sys.stdin is not None,
        "paths: expected a standard input for '-', got a closed one. Name a file.",
    )
    content = sys.stdin.buffer.read() if path is None else path.read_bytes()
    fail_unless(
        not content or content.strip(b"\0") != b"",
        f"paths: expected text, got {len(content):,} NUL bytes and nothing else in "
        f"{quote(name if path is None else str(path), 200)}. The file was not written to its end: copy it again.",
    )
    return Document(name, decode_utf8(content, name if path is None else str(path), errors))


def _some(names: list[str], most: int = 5) -> str:
    """The first names, for a message."""
    return ", ".join(map(repr, names[:most])) + (", …" if len(names) > most else "")
