"""`jax-attention evaluate`: loss and bits per byte of a model on a whole text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import tyro

from jax_attention import data, training
from jax_attention.cli import pretrained, run_folder
from jax_attention.cli.output import table
from jax_attention.cli.own_code import OwnCode
from jax_attention.core.tree_paths import check_finite


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure the loss of a model on text; every token is predicted once.

    Args:
        folder: folder of a run, of a Hugging Face model, or of adapters saved by PEFT.
        files: text files, folders or globs; the validation text of the run if none.
        length: tokens per row; if None as in the run's training, for a Hugging Face model at most 1024.
        step: step of a run's checkpoint; the one with the best validation loss if None.
        batch_size: rows per batch, rounded up to a multiple of the number of devices.
        code: code of your own that may run.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    files: tuple[str, ...] = ()
    length: int | None = None
    step: int | None = None
    batch_size: int = 16
    code: OwnCode = field(default_factory=OwnCode)

    def run(self) -> None:
        """Print one line of results."""
        run = run_folder.open_model(self.folder, self.code.modules)
        text = self.text(run)
        model, step = run.load(self.step)
        check_finite(model, "folder: expected a model with finite weights, as others give no probabilities")
        rows = -(-self.batch_size // len(jax.devices())) * len(jax.devices())
        metrics = training.make_evaluate(text.source, rows)(model)
        if not math.isfinite(metrics["loss"]):
            raise ValueError(
                f"folder: expected a model that gives every token a probability, got a loss of {metrics['loss']}. Its "
                "numbers overflow: take an earlier checkpoint by --step, or a model in another dtype."
            )
        name = ", ".join(self.files) or "held-out text of the run"
        row = (
            name,
            step,
            int(metrics["tokens"]),
            f"{metrics['loss']:.4f}",
            f"{text.bits_per_byte(metrics['loss']):.4f}",
        )
        table(("text", "step", "tokens", "nats per token", "bits per byte"), [row])

    def text(self, run: run_folder.Run | pretrained.Pretrained) -> data.HeldOut:
        """The text to predict: files, or the validation text of the run."""
        length = run.length if self.length is None else self.length
        if not 0 < length <= run.config.context:
            raise ValueError(f"length: expected 1 to {run.config.context} tokens, the model's context, got {length}.")
        if self.files:
            return data.held_out(data.read_documents(self.files), run.tokenizer, length=length, packed=run.packed)
        if isinstance(run, pretrained.Pretrained):
            raise ValueError("files: expected some, as only a run has held-out text, got none. Give --files.")
        corpus = run.corpus(length)
        return data.HeldOut(corpus.validation, corpus.validation_bytes, corpus.escape_bits)
