"""Where the commands write: tables and text for people, without colours or wrapping when piped."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def console() -> Any:
    """A rich console on standard output; plain text when that is not a terminal."""
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)


def print_line(text: str = "") -> None:
    """One line on standard output, exactly as it is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(titles: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """A table; tab-separated lines when piped, so that other programs can read it."""
    rows = [tuple(str(cell) for cell in row) for row in rows]
    if not sys.stdout.isatty():
        for row in (tuple(titles), *rows):
            print_line("\t".join(row))
        return
    from rich import box
    from rich.table import Table

    shown = Table(*titles, box=box.SIMPLE)
    for row in rows:
        shown.add_row(*(cell.replace("[", r"\[") for cell in row))
    console().print(shown)
