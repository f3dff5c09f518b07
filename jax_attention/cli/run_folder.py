"""The folder of a run: everything that `generate`, `evaluate`, `show` and `--resume` need.

config.json      config of the model, and settings of the training command
tokenizer/       the tokenizer
corpus/          the token ids of the text
origin/          config and tokenizer files of the Hugging Face folder that the run started from
checkpoints/     train states, written by Orbax; with --lora of the adapters only
metrics.jsonl    losses, evaluations, sample texts
results.json     final losses, next to unigram and bigram baselines
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
    """An opened run folder: config of the model, settings of the training command, tokenizer."""

    folder: Path
    config: models.LMConfig
    settings: dict[str, Any]
    tokenizer: data.Tokenizer
    origin: dict[str, str] | None = None
    """Folder, family and fingerprint of the model that the run started from."""

    @property
    def length(self) -> int:
        """Tokens per row."""
        return self.settings.get("length") or self.config.context

    @property
    def packed(self) -> bool:
        """Whether rows hold whole documents."""
        return self.settings["packed"]

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end a text."""
        return pretrained.stop_tokens(self.folder / ORIGIN)

    @property
    def checkpoints(self) -> training.Checkpoints:
        """The train states of the run."""
        return training.Checkpoints(self.folder / CHECKPOINTS)

    def corpus(self, length: int | None = None) -> data.Corpus:
        """The tokens for training and validation, as they were when the run started."""
        return data.open_corpus(self.folder / CORPUS, self.tokenizer, length=length or self.length, packed=self.packed)

    def start(self, rng: Any) -> tuple[Any, models.TransformerLM | None]:
        """The initial model; or the initial adapters, and the base model that they adapt."""
        model = models.create(self.config, rng) if self.origin is None else self.base()
        settings = TrainSettings.from_json(self.settings)
        return (model, None) if settings.lora is None else (settings.adapters(model, rng), model)

    def base(self) -> models.TransformerLM:
        """The model that the run started from."""
        return pretrained.load_origin(self.origin, self.config)

    def trained_shapes(self) -> Any:
        """The model or adapters that the run trains, as shapes."""
        settings = TrainSettings.from_json(self.settings)

        def make() -> Any:
            model = models.create(self.config)
            return model if settings.lora is None else settings.adapters(model, 0)

        return jax.eval_shape(make)

    def load_trained(self, step: int | None = None) -> tuple[Any, int]:
        """The trained model or adapters of a checkpoint, and its step.

        The default is the checkpoint with the best validation loss, else the newest.
        """
        checkpoints = self.checkpoints
        if step is None:
            step = checkpoints.best if checkpoints.best is not None else checkpoints.latest
        trained = checkpoints.restore(step, like=self.trained_shapes(), part="model")
        return trained, checkpoints.read(step)["step"]

    def load(self, step: int | None = None) -> tuple[models.TransformerLM, int]:
        """The model at a step, its adapters applied; the default step is that of `load_trained`."""
        trained, step = self.load_trained(step)
        return nn.apply_adapters(self.base(), trained) if isinstance(trained, nn.Adapters) else trained, step


def create_folder(run: Run, corpus: data.Corpus) -> None:
    """Write the folder of a new run; a folder that holds anything is refused."""
    check_empty(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    run.tokenizer.save(run.folder / TOKENIZER)
    corpus.save(run.folder / CORPUS)
    contents = {
        "format": FORMAT,
        "version": jax_attention.__version__,
        "model": models.config_to_json(run.config),
        "settings": run.settings,
        "tokenizer": run.tokenizer.fingerprint,
    }
    if run.origin is not None:
        names = (pretrained.CONFIG, *pretrained.TOKENIZER_FILES)
        pretrained.copy_files(Path(run.origin["folder"]), run.folder / ORIGIN, names)
        contents["origin"] = run.origin
    write_json(run.folder / CONFIG, contents)


def check_empty(folder: Path) -> None:
    """Raise if the folder holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"out: expected a new or empty folder, got {str(folder)!r}, which is not empty. Nothing was written. "
            "Continue that run with --resume, or choose another --out."
        )


def open_run(folder: Path) -> Run:
    """Open a run that a training command wrote."""
    path = folder / CONFIG
    if not path.is_file():
        other = "a file" if folder.exists() else "which does not exist"
        problem = "which has none" if folder.is_dir() else other
        raise FileNotFoundError(
            f"run: expected the folder of a run, with {CONFIG}, got {str(folder)!r}, {problem}. It is the --out of "
            "`jax-attention train`; `generate`, `evaluate` and `show` also take the folder of a Hugging Face "
            "model."
        )
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"run: expected JSON in {str(path)!r}, got something else ({error}).") from None
    keys = {"format", "model", "settings", "tokenizer"}
    if not isinstance(contents, dict) or contents.get("format") != FORMAT or not keys <= set(contents):
        raise ValueError(
            f"run: expected a {CONFIG} written by `jax-attention train` ({FORMAT}), got another in {str(path)!r}."
        )
    tokenizer = data.load_tokenizer(folder / TOKENIZER)
    config = models.config_from_json(contents["model"])
    if tokenizer.vocab_size > config.vocab_size or tokenizer.fingerprint != contents["tokenizer"]:
        raise ValueError(
            "run: expected the tokenizer that the model was trained with "
            f"({contents['tokenizer']}, at most {config.vocab_size} ids), "
            f"got one of {tokenizer.vocab_size} ids, {tokenizer.fingerprint}, in {str(folder / TOKENIZER)!r}."
        )
    return Run(folder, config, contents["settings"], tokenizer, contents.get("origin"))


def open_model(folder: Path) -> Run | pretrained.Pretrained:
    """Open a folder that holds a model: a run, or a Hugging Face folder."""
    return pretrained.open_pretrained(folder) if pretrained.is_pretrained(folder) else open_run(folder)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, completely or not at all."""
    with replaced_file(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
