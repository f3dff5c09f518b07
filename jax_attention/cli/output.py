"""Tables of the commands: drawn on a terminal, tab-separated lines when piped."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from jax_attention.core.output import print_line
from jax_attention.core.text import printable

__all__ = ["print_line", "table"]


def table(titles: Sequence[str], rows: Iterable[Iterable[Any]], left_out: Collection[int] = ()) -> None:
    """Print a table; as tab-separated lines when piped, so that other programs can read it.

    Args:
        titles: titles of the columns.
        rows: rows of cells, which may hold any text.
        left_out: columns that a terminal has no room for.
    """
    rows = [tuple(_cell(cell) for cell in row) for row in rows]
    if not sys.stdout.isatty():
        for row in (tuple(titles), *rows):
            print_line("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rich_table = Table(box=box.SIMPLE)
    shown = [i for i in range(len(titles)) if i not in left_out]
    for i in shown:
        rich_table.add_column(Text(titles[i]))
    for row in rows:
        rich_table.add_row(*(Text(row[i]) for i in shown))  # not str, in which rich would read [text] as markup
    Console(soft_wrap=True, highlight=False).print(rich_table)


def _cell(x: Any) -> str:
    return printable(str(x)).replace("\t", " ").replace("\n", "\\n")
