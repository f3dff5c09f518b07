"""Output of the commands: tables and text; without colours and line breaks when piped."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def console() -> Any:
    """A rich console on standard output; it prints plain text when that is not a terminal."""
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)


def print_line(text: str = "") -> None:
    """Print one line on standard output, exactly as it is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(titles: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table; as tab-separated lines when piped, so that other programs can read it."""
    rows = [tuple(str(cell) for cell in row) for row in rows]
    if not sys.stdout.isatty():
        for row in (tuple(titles), *rows):
            print_line("\t".join(row))
        return
    # rich reads [text] as markup, so brackets in cells are escaped.
    from rich import box
    from rich.table import Table

    rich_table = Table(*titles, box=box.SIMPLE)
    for row in rows:
        rich_table.add_row(*(cell.replace("[", r"\[") for cell in row))
    console().print(rich_table)
