"""The folder of a run: everything that `generate`, `evaluate`, `show` and `--resume` need.

config.json      the model's config, and the settings of the training command
tokenizer/       what made ids of text
checkpoints/     states, written by Orbax
metrics.jsonl    losses, evaluations, samples
results.json     the final figures beside unigram and bigram counts
*.png, *.html    attention of the trained model
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

import jax_attention
from jax_attention import data, models, training
from jax_attention.ground.files import replaced_file

FORMAT = "jax_attention.run/1"
CONFIG, TOKENIZER, CORPUS, CHECKPOINTS, METRICS, RESULTS = (
    "config.json",
    "tokenizer",
    "corpus",
    "checkpoints",
    "metrics.jsonl",
    "results.json",
)


@dataclass(frozen=True)
class Run:
    """A run folder that was opened: its model's config, the training command's settings, the tokenizer."""

    folder: Path
    config: models.LMConfig
    settings: dict[str, Any]
    tokenizer: data.Tokenizer

    @property
    def checkpoints(self) -> training.Checkpoints:
        """The states of the run."""
        return training.Checkpoints(self.folder / CHECKPOINTS)

    def corpus(self) -> data.Corpus:
        """The tokens that the run is trained on and judged by, as they were when it began."""
        return data.open_corpus(
            self.folder / CORPUS, self.tokenizer, length=self.config.context, packed=self.settings["packed"]
        )

    def load(self, step: int | None = None) -> tuple[models.TransformerLM, int]:
        """The model at a step, by default the best one seen in validation, else the newest; and that step."""
        checkpoints = self.checkpoints
        if step is None:
            step = checkpoints.best if checkpoints.best is not None else checkpoints.latest
        like = jax.eval_shape(lambda: models.create(self.config))
        model = checkpoints.restore(step, like=like, part="model")
        return model, checkpoints.read(step)["step"]


def begin(folder: Path, config: models.LMConfig, settings: dict[str, Any], corpus: data.Corpus) -> Run:
    """A new run folder; refuses one that holds anything already."""
    check_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    corpus.tokenizer.save(folder / TOKENIZER)
    corpus.save(folder / CORPUS)
    about = {
        "format": FORMAT,
        "version": jax_attention.__version__,
        "model": models.config_to_json(config),
        "settings": settings,
        "tokenizer": corpus.tokenizer.fingerprint,
    }
    write_json(folder / CONFIG, about)
    return Run(folder, config, settings, corpus.tokenizer)


def check_empty(folder: Path) -> None:
    """Refuse a folder that holds anything already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"out: expected a new or empty folder, got {str(folder)!r}, which holds something. Nothing was written. "
            "Continue that run with --resume, or choose another --out."
        )


def open_run(folder: Path) -> Run:
    """The run that a training command wrote."""
    path = folder / CONFIG
    if not path.is_file():
        what = "which holds none" if folder.is_dir() else "which does not exist"
        raise FileNotFoundError(
            f"run: expected the folder of a run, with {CONFIG}, got {str(folder)!r}, {what}. It is what was given to "
            "`jax-attention train` as --out."
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"run: expected JSON in {str(path)!r}, got something else ({error}).") from None
    keys = {"format", "model", "settings", "tokenizer"}
    if not isinstance(about, dict) or about.get("format") != FORMAT or not keys <= set(about):
        raise ValueError(
            f"run: expected a {CONFIG} written by `jax-attention train` ({FORMAT}), got another in {str(path)!r}."
        )
    tokenizer = data.load_tokenizer(folder / TOKENIZER)
    config = models.config_from_json(about["model"])
    if tokenizer.vocab_size != config.vocab_size or tokenizer.fingerprint != about["tokenizer"]:
        raise ValueError(
            "run: expected the tokenizer that the model was trained with "
            f"({config.vocab_size} ids, {about['tokenizer']}), "
            f"got one of {tokenizer.vocab_size} ids, {tokenizer.fingerprint}, in {str(folder / TOKENIZER)!r}."
        )
    return Run(folder, config, about["settings"], tokenizer)


def write_json(path: Path, content: Any) -> None:
    """A JSON file, whole or not at all."""
    with replaced_file(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
