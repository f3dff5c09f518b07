"""`jax-attention show`: draw the attention of a model on a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jax_attention.cli import report, run_folder
from jax_attention.cli.output import print_line
from jax_attention.cli.own_code import OwnCode


@dataclass(frozen=True, kw_only=True)
class Show:
    """Draw the attention of a model on a sentence: heat map, grid of heads, one self-contained page.

    Args:
        folder: folder of a run, of a Hugging Face model, or of adapters saved by PEFT.
        text: the sentence.
        step: step of a run's checkpoint; the one with the best validation loss if None.
        out: folder for the pictures; FOLDER/show if left out. Older pictures there are replaced.
        code: code of your own that may run.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    text: str
    step: int | None = None
    out: Path | None = None
    code: OwnCode = field(default_factory=OwnCode)

    def run(self) -> None:
        """Draw the pictures and print their paths."""
        run = run_folder.open_model(self.folder, self.code.modules)
        ids = np.asarray(run.tokenizer.encode(self.text))
        if not 0 < len(ids) <= run.config.context:
            raise ValueError(
                f"text: expected 1 to {run.config.context} tokens, as that is the context, got {len(ids)}."
            )
        model, _ = run.load(self.step)
        target = self.folder / "show" if self.out is None else self.out
        target.mkdir(parents=True, exist_ok=True)
        for path in report.draw(run, model, ids, target):
            print_line(str(path))
