"""Files that come with a folder from elsewhere: their size, their JSON and the names in them are checked when read."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from jax_attention.core.checks import fail_unless
from jax_attention.core.text import quote, quote_path

MAX_JSON_BYTES = 256 * 2**20
"""Largest JSON file. The tokenizers and indices of published models have at most some 35 MB."""
MAX_LAYERS = 4096
"""Most layers of a model in a folder: each takes milliseconds to build. Published models have at most a thousand."""
MAX_DEPTH = 64
"""Deepest nesting of JSON; configs and tokenizers have less than 10 levels."""


def foreign_file(folder: Path, name: Any, argument: str = "path") -> Path:
    """The path of a file that a folder, or an index in it, names: a plain name, and a file in that folder.

    Raises:
        ValueError: if the name has a folder in it, or is a link that leads out of the folder. The links of Hugging
            Face's cache, from `snapshots/REVISION/` to `blobs/`, are allowed.
        FileNotFoundError: if there is no such file.
    """
    fail_unless(
        _is_plain_name(name),
        f"{argument}: expected the name of a file in {quote_path(folder)}, got {quote(name)}.",
    )
    path = folder / name
    fail_unless(path.is_file(), f"{argument}: expected a file {quote_path(path)}, got none.", FileNotFoundError)
    if path.is_symlink():
        target, home = path.resolve(), folder.resolve()
        is_cached = home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"
        fail_unless(
            target.is_relative_to(home) or is_cached,
            f"{argument}: expected a file in {quote_path(folder)}, got {quote(name)}, a link to {quote_path(target)} "
            "outside of it. If you trust it, put a copy in its place.",
        )
    return path


def _is_plain_name(name: Any) -> bool:
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
        return False
    try:
        return len(os.fsencode(name)) <= 255  # more than file systems take
    except UnicodeEncodeError:
        return False


def read_bytes(path: Path, max_bytes: int = MAX_JSON_BYTES, argument: str = "path") -> bytes:
    """The content of a regular file of at most `max_bytes`; a device or a pipe is refused."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        about = os.fstat(file.fileno())
        fail_unless(stat.S_ISREG(about.st_mode), f"{argument}: expected a file, got {quote_path(path)}, which is none.")
        fail_unless(
            about.st_size <= max_bytes,
            f"{argument}: expected at most {max_bytes:,} bytes in {quote_path(path)}, got {about.st_size:,}.",
        )
        return file.read(max_bytes + 1)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait for its writer


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES, argument: str = "path") -> dict[str, Any]:
    """The JSON object in a file: UTF-8, finite numbers, at most `MAX_DEPTH` levels.

    Raises:
        ValueError: if it is anything else; the message names the file.
        OSError: if it cannot be read.
    """
    return parse_json(read_bytes(path, max_bytes, argument), str(path), argument)


def parse_json(content: str | bytes, place: str, argument: str = "path", *, check_depth: bool = True) -> dict[str, Any]:
    """The JSON object in a text; `place` says in messages where it comes from.

    Without `check_depth` only nesting that Python cannot parse is refused: for large files that something else reads.
    """

    def fail(what: str) -> NoReturn:
        raise ValueError(f"{argument}: expected JSON in {quote_path(place)}, got {what}.")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else fail(f"the number {quote(text, 30)}")

    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        parsed = json.loads(text, parse_constant=finite, parse_float=finite, parse_int=_integer(fail))
    except RecursionError:
        fail(f"more than {MAX_DEPTH} levels of brackets")
    except UnicodeDecodeError as error:
        fail(f"bytes that are not UTF-8 at offset {error.start}")
    except json.JSONDecodeError as error:
        fail(f"something else in line {error.lineno}, column {error.colno} ({error.msg})")
    if not isinstance(parsed, dict):
        fail(f"a {type(parsed).__name__}, not an object")
    if check_depth and json_depth(parsed) > MAX_DEPTH:
        fail(f"more than {MAX_DEPTH} levels of brackets")
    return parsed


def _integer(fail: Callable[[str], NoReturn]) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if len(text) > 20:  # beyond 64 bits no field has a meaning, and Python refuses more than 4,300 digits
            fail(f"an integer of {len(text):,} digits")
        return int(text)

    return convert


def json_depth(x: Any) -> int:
    """Levels of objects and lists, counted without recursion; `MAX_DEPTH + 1` stands for any more."""
    level, depth = [x], 0
    while level := [child for parent in level if isinstance(parent, (dict, list)) for child in _children(parent)]:
        depth += 1
        if depth > MAX_DEPTH:
            break
    return depth


def _children(parent: dict | list) -> Any:
    return parent.values() if isinstance(parent, dict) else parent
