"""`jax-attention evaluate`: loss and bits per byte of a text, all of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from jax_attention import data, training
from jax_attention.cli import run_folder
from jax_attention.cli.output import table


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure the model of a run folder on text: every token is predicted once.

    Args:
        folder: of a run.
        files: text files, folders or globs; the run's own held-out text if none.
        step: which checkpoint; the best one seen in validation if None.
        batch_size: rows at once, rounded up to a multiple of the devices.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    files: tuple[str, ...] = ()
    step: int | None = None
    batch_size: int = 16

    def run(self) -> None:
        """Print one line of figures."""
        run = run_folder.open_run(self.folder)
        model, step = run.load(self.step)
        if self.files:
            documents, packed = data.read_documents(self.files), run.settings["packed"]
            text = data.held_out(documents, run.tokenizer, length=run.config.context, packed=packed)
        else:
            corpus = run.corpus()
            text = data.HeldOut(corpus.validation, corpus.validation_bytes, corpus.escape_bits)
        rows = -(-self.batch_size // len(jax.devices())) * len(jax.devices())
        found = training.make_evaluate(text.source, rows)(model)
        name = ", ".join(self.files) or "held-out text of the run"
        row = (name, step, int(found["tokens"]), f"{found['loss']:.4f}", f"{text.bits_per_byte(found['loss']):.4f}")
        table(("text", "step", "tokens", "nats per token", "bits per byte"), [row])
