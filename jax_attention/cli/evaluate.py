"""`jax-attention evaluate`: loss and bits per byte of a text, all of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

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
        batch_size: rows at once.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    files: tuple[str, ...] = ()
    step: int | None = None
    batch_size: int = 16

    def run(self) -> None:
        """Print one line of figures."""
        run = run_folder.open_run(self.folder)
        model, step = run.load(self.step)
        corpus = run.corpus() if not self.files else None
        if corpus is None:
            tokens = data.tokenize(data.read_documents(self.files), run.tokenizer)
            packed = run.settings["packed"]
            source = (data.Packed if packed else data.Windows)(tokens, run.config.context)
            count = data.predicted_bytes(tokens, run.tokenizer, packed)
            found = training.make_evaluate(source, self.batch_size, text_bytes=count)(model)
        else:
            found = training.make_evaluate(corpus.validation, self.batch_size)(model)
            found["bits_per_byte"] = corpus.bits_per_byte(found["loss"])
        name = ", ".join(self.files) or "held-out text of the run"
        row = (name, step, int(found["tokens"]), f"{found['loss']:.4f}", f"{found['bits_per_byte']:.4f}")
        table(("text", "step", "tokens", "nats per token", "bits per byte"), [row])
