"""The result of comparing two models, as an object, as text, as a table and as a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jax_attention.core.html import show_page
from jax_attention.core.text import printable
from jax_attention.interop.parity.diagnose import Diagnosis
from jax_attention.interop.parity.page import page
from jax_attention.interop.parity.rounding import ParityRow

TITLES = ("layer", "point", "max abs", "allowed", "used", "max rel", "ulps", "cosine", "")
NARROW = (0, 1, 2, 3, 4, 7, 8)
"""Columns that fit a terminal of 80 characters. The largest relative distances are left out: they are those of the
smallest numbers.
"""
LEFT_ALIGNED = (1, 8)
PAGE_HEIGHT = 480
"""Height of the page in a notebook, in pixels: verdict, figure, and the first rows."""


@dataclass(frozen=True)
class ParityReport:
    """Whether two models compute the same, and if not, from which layer on, and why.

    `rows` are in the order of the computation. Points are local: the JAX part got the input that the part in
    transformers got. Only `stream` and `logits` are those of two whole models.
    """

    title: str
    dtype: str
    rows: tuple[ParityRow, ...]
    tolerance: float
    """Relative tolerance where nothing is summed; that of a row grows from it with its sums and its depth."""
    cause: Diagnosis | None
    notes: tuple[str, ...] = ()

    @property
    def suspect(self) -> ParityRow | None:
        """The first row that rounding does not explain."""
        return next((row for row in self.rows if not row.equal), None)

    @property
    def equal(self) -> bool:
        """Whether rounding explains every row."""
        return self.suspect is None

    @property
    def verdict(self) -> str:
        """`rounding`, or the first place where it is more than that, and its cause."""
        row = self.suspect
        if row is None:
            return "rounding"
        layer = "" if row.layer is None else f"layer {row.layer}"
        place = " ".join(word for word in (row.stack, layer) if word)
        where = ", ".join(word for word in (place, row.point) if word)
        return f"suspicious from {where}: {self.cause.sentence if self.cause else 'cause unknown'}"

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as text, under `TITLES`."""
        return [
            (
                row.place,
                row.point,
                *(f"{x:.1e}" for x in (row.difference.max_abs, row.allowed)),
                f"{row.used:.2g}",
                f"{row.difference.max_rel:.1e}",
                f"{row.difference.ulps:.3g}",
                f"{row.difference.cosine:.9f}",
                "" if row.equal else "NOT equal",
            )
            for row in self.rows
        ]

    def table(self) -> Any:
        """A `rich` table of the most important columns."""
        from rich.table import Table
        from rich.text import Text

        # The title has the path of the folder: as Text, because rich reads [words] of a str as markup.
        title, caption = Text(printable(f"{self.title}, {self.dtype}")), Text(printable(self.verdict))
        table = Table(title=title, caption=caption, box=None, padding=(0, 1, 0, 0))
        for i in NARROW:
            table.add_column(TITLES[i], justify="left" if i in LEFT_ALIGNED else "right", no_wrap=True)
        for row, cells in zip(self.rows, self.cells(), strict=True):
            table.add_row(*(cells[i] for i in NARROW), style=None if row.equal else "bold red")
        return table

    def html(self) -> str:
        """One page that needs no network and no scripts."""
        return page(self.title, self.dtype, self.verdict, self.rows, (TITLES, *self.cells()), self.notes)

    def __repr__(self) -> str:
        return printable(f"ParityReport({self.title}, {self.dtype}, {len(self.rows)} rows: {self.verdict})")

    def _repr_html_(self) -> str:
        return show_page(self.html(), height=PAGE_HEIGHT)

    def __str__(self) -> str:
        lines = [TITLES, *self.cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(TITLES))]
        texts = [
            " ".join(
                x.ljust(width) if i in LEFT_ALIGNED else x.rjust(width)
                for i, (x, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([f"{self.title}, {self.dtype}", *texts, *self.notes, self.verdict])
