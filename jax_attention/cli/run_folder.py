"""The folder of a run: everything that `generate`, `evaluate`, `show` and `--resume` need.

config.json      the model's config, and the settings of the training command
tokenizer/       what made ids of text
origin/          of the Hugging Face folder that the run started from: its config and the files beside its tokenizer
checkpoints/     states, written by Orbax; with adapters those alone, beside the model that the run started from
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
from jax_attention import data, models, nn, training
from jax_attention.cli import pretrained
from jax_attention.cli.settings import TrainSettings
from jax_attention.core.files import replaced_file

FORMAT = "jax_attention.run/1"
CONFIG, TOKENIZER, ORIGIN, CORPUS, CHECKPOINTS, METRICS, RESULTS = (
    "config.json",
    "tokenizer",
    "origin",
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
    origin: dict[str, str] | None = None
    """Folder, family and fingerprint of the model that it started from."""

    @property
    def length(self) -> int:
        """Tokens in a row."""
        return self.settings.get("length") or self.config.context

    @property
    def packed(self) -> bool:
        """Whether a row holds whole documents."""
        return self.settings["packed"]

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Tokens that end a text."""
        return pretrained.stop_tokens(self.folder / ORIGIN)

    @property
    def checkpoints(self) -> training.Checkpoints:
        """The states of the run."""
        return training.Checkpoints(self.folder / CHECKPOINTS)

    def corpus(self, length: int | None = None) -> data.Corpus:
        """The tokens that the run is trained on and judged by, as they were when it began."""
        return data.open_corpus(self.folder / CORPUS, self.tokenizer, length=length or self.length, packed=self.packed)

    def start(self, rng: Any) -> tuple[Any, models.TransformerLM | None]:
        """What is trained, before the first step, and the model under it if that is adapters."""
        model = models.create(self.config, rng) if self.origin is None else self.base()
        settings = TrainSettings.from_json(self.settings)
        return (model, None) if settings.lora is None else (settings.adapters(model, rng), model)

    def base(self) -> models.TransformerLM:
        """The model that it started from."""
        return pretrained.load_origin(self.origin, self.config)

    def trained(self) -> Any:
        """The shapes of what is trained."""
        settings = TrainSettings.from_json(self.settings)

        def make() -> Any:
            model = models.create(self.config)
            return model if settings.lora is None else settings.adapters(model, 0)

        return jax.eval_shape(make)

    def load_trained(self, step: int | None = None) -> tuple[Any, int]:
        """What is trained at a step, by default the best one seen in validation, else the newest; and that step."""
        checkpoints = self.checkpoints
        if step is None:
            step = checkpoints.best if checkpoints.best is not None else checkpoints.latest
        trained = checkpoints.restore(step, like=self.trained(), part="model")
        return trained, checkpoints.read(step)["step"]

    def load(self, step: int | None = None) -> tuple[models.TransformerLM, int]:
        """The model at a step, with its adapters if it has some; see `load_trained`."""
        trained, step = self.load_trained(step)
        return nn.apply_adapters(self.base(), trained) if isinstance(trained, nn.Adapters) else trained, step


def begin(run: Run, corpus: data.Corpus) -> None:
    """Make the folder of a new run; refuses one that holds anything already."""
    check_empty(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    run.tokenizer.save(run.folder / TOKENIZER)
    corpus.save(run.folder / CORPUS)
    about = {
        "format": FORMAT,
        "version": jax_attention.__version__,
        "model": models.config_to_json(run.config),
        "settings": run.settings,
        "tokenizer": run.tokenizer.fingerprint,
    }
    if run.origin is not None:
        names = (pretrained.CONFIG, *pretrained.BESIDE)
        pretrained.copy_beside(Path(run.origin["folder"]), run.folder / ORIGIN, names)
        about["origin"] = run.origin
    write_json(run.folder / CONFIG, about)


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
        missing = "a file" if folder.exists() else "which does not exist"
        what = "which holds none" if folder.is_dir() else missing
        raise FileNotFoundError(
            f"run: expected the folder of a run, with {CONFIG}, got {str(folder)!r}, {what}. It is what was given to "
            "`jax-attention train` as --out; `generate`, `evaluate` and `show` also take the folder of a Hugging Face "
            "model."
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
    if tokenizer.vocab_size > config.vocab_size or tokenizer.fingerprint != about["tokenizer"]:
        raise ValueError(
            "run: expected the tokenizer that the model was trained with "
            f"({about['tokenizer']}, at most {config.vocab_size} ids), "
            f"got one of {tokenizer.vocab_size} ids, {tokenizer.fingerprint}, in {str(folder / TOKENIZER)!r}."
        )
    return Run(folder, config, about["settings"], tokenizer, about.get("origin"))


def open_model(folder: Path) -> Run | pretrained.Pretrained:
    """A folder that holds a model: of a run, or of Hugging Face."""
    return pretrained.open_pretrained(folder) if pretrained.is_pretrained(folder) else open_run(folder)


def write_json(path: Path, content: Any) -> None:
    """A JSON file, whole or not at all."""
    with replaced_file(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
