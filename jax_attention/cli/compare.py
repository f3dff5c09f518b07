"""`jax-attention compare`: one model folder in transformers and in this library, compared layer by layer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jax_attention.cli.output import console, print_line, table
from jax_attention.core.output import print_error


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Run a Hugging Face folder in transformers and here, layer by layer; exit status 1 if they differ.

    Args:
        folder: a Hugging Face folder with config.json and weights.
        text: text to run on, cut into tokens by the folder's tokenizer; random tokens if None. For an encoder-decoder
            it is the target.
        source: text that an encoder-decoder reads; random tokens if None.
        dtype: dtype to compute in; "stored" is that of the weights.
        html: file to write the report to, as a page.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    text: str | None = None
    source: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "stored"] = "float32"
    html: Path | None = None

    def run(self) -> int:
        """Print the rows and the verdict; return 0 if rounding explains all differences, else 1."""
        from jax_attention import interop
        from jax_attention.interop.parity.report import TITLES

        dtype = None if self.dtype == "stored" else self.dtype
        report = interop.compare(self.folder, text=self.text, source=self.source, dtype=dtype, progress=print_error)
        if sys.stdout.isatty():
            console().print(report.table())
        else:
            table(TITLES, report.cells())
        if self.html is not None:
            self.html.write_text(report.html(), encoding="utf-8")
            print_line(str(self.html))
        for line in (*report.notes, f"{report.title}, {report.dtype}: {report.verdict}"):
            print_line(line)
        return 0 if report.equal else 1
