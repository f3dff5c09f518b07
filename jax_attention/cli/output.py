"""Tables of the commands: drawn on a terminal, tab-separated lines when piped."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from jax_attention.core.output import print_line
from jax_attention.core.text import printable

__all__ = ["console", "print_line", "table"]


def console() -> Any:
    """A rich console on standard output."""
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)


def table(titles: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table; as tab-separated lines when piped, so that other programs can read it."""
    rows = [tuple(_cell(cell) for cell in row) for row in rows]
    if not sys.stdout.isatty():
        for row in (tuple(titles), *rows):
            print_line("\t".join(row))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rich_table = Table(box=box.SIMPLE)
    for title in titles:
        rich_table.add_column(Text(title))  # Text, as rich reads [words] of a str as markup
    for row in rows:
        rich_table.add_row(*map(Text, row))
    console().print(rich_table)


def _cell(x: Any) -> str:
    return printable(str(x)).replace("\t", " ").replace("\n", "\\n")
