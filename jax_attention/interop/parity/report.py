"""What a comparison of two models found, as a value; as text, as a table, as a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jax_attention.interop.parity.diagnose import Diagnosis
from jax_attention.interop.parity.page import page
from jax_attention.interop.parity.rounding import ParityRow

TITLES = ("layer", "point", "max abs", "allowed", "used", "max rel", "ulps", "cosine", "")
NARROW = (0, 1, 2, 3, 4, 7, 8)
"""Columns of the table for terminals of 80 characters: largest relative distances are those of the smallest numbers."""


@dataclass(frozen=True)
class ParityReport:
    """Whether two models compute the same, since where they do not, and why.

    `rows` are in the order of the computation. Points are local: ours got what theirs got there. `stream` and `logits`
    alone are those of two models that ran by themselves.
    """

    title: str
    dtype: str
    rows: tuple[ParityRow, ...]
    tolerance: float
    """Relative, where nothing is summed; what a row may differ by grows from it with its sums and with depth."""
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
        """`rounding`, or since where it is more than that, and why."""
        row = self.suspect
        if row is None:
            return "rounding"
        layer = "" if row.layer is None else f"layer {row.layer}"
        place = " ".join(word for word in (row.half, layer) if word)
        where = ", ".join(word for word in (place, row.point) if word)
        return f"suspicious from {where}: {self.cause.sentence if self.cause else 'cause unknown'}"

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as words, under `TITLES`."""
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
        """The most telling columns as a table of rich."""
        from rich.table import Table

        made = Table(title=f"{self.title}, {self.dtype}", caption=self.verdict, box=None, padding=(0, 1, 0, 0))
        for i in NARROW:
            made.add_column(TITLES[i], justify="left" if i in (1, 8) else "right", no_wrap=True)
        for row, cells in zip(self.rows, self.cells(), strict=True):
            made.add_row(*(cells[i] for i in NARROW), style=None if row.equal else "bold red")
        return made

    def html(self) -> str:
        """One page that needs no network and no scripts."""
        return page(self.title, self.dtype, self.verdict, self.rows, (TITLES, *self.cells()), self.notes)

    def __str__(self) -> str:
        lines = [TITLES, *self.cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(TITLES))]
        texts = [
            " ".join(
                x.ljust(width) if i in (1, 8) else x.rjust(width)
                for i, (x, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([f"{self.title}, {self.dtype}", *texts, *self.notes, self.verdict])
