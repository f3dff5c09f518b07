"""The folder of a run: everything that `generate`, `evaluate`, `show` and `--resume` need.

config.json      config of the model, settings of the training command, identity of the run
lock             locked by the process that trains
tokenizer/       the tokenizer
corpus/          the token ids of the text
origin/          config and tokenizer files of the Hugging Face folder that the run started from
checkpoints/     train states, written by Orbax; with --lora of the adapters only
metrics.jsonl    losses, evaluations, sample texts
results.json     final losses, next to unigram and bigram baselines
*.png, *.html    attention of the trained model
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jax_attention
from jax_attention import data, interop, models, nn, training
from jax_attention.cli import pretrained
from jax_attention.cli.run_identity import check_data, digest, is_identity, new_identity
from jax_attention.cli.settings import TrainSettings
from jax_attention.core.checks import fail_unless
from jax_attention.core.files import new_folder, replaced_file
from jax_attention.core.folder_lock import LOCK
from jax_attention.core.foreign_files import MAX_LAYERS, read_json
from jax_attention.core.text import list_names, quote_path

FORMAT = "jax_attention.run/1"
MIN_KEPT = 2
"""Checkpoints that are kept at least: when the newest is damaged, a run resumes from the one before."""
CONFIG, TOKENIZER, ORIGIN, CORPUS, CHECKPOINTS, METRICS, RESULTS, TENSORBOARD = (
    "config.json",
    "tokenizer",
    "origin",
    "corpus",
    "checkpoints",
    "metrics.jsonl",
    "results.json",
    "tensorboard",
)


@dataclass(frozen=True)
class Run:
    """An opened run folder: config of the model, settings of the training command, tokenizer."""

    folder: Path
    config: models.LMConfig
    settings: dict[str, Any]
    tokenizer: data.Tokenizer
    origin: dict[str, Any] | None = None
    """Folder, family and fingerprint of the model that the run started from; for a run its id and step."""
    identity: dict[str, Any] | None = None
    """See `run_identity`; None for a new run, and for one of version 0.1 or an early 0.2."""
    allow_code: tuple[str, ...] = ()
    """Modules that its config may name."""

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
        origin = self.folder / ORIGIN
        return interop.stop_tokens(origin) if (origin / pretrained.CONFIG).is_file() else ()

    def encode(self, text: str) -> np.ndarray:
        """Ids of the tokens of a text."""
        return self.tokenizer.encode(text)

    @property
    def checkpoints(self) -> training.Checkpoints:
        """The train states of the run."""
        return self.open_checkpoints()

    def open_checkpoints(self, keep: int = MIN_KEPT) -> training.Checkpoints:
        """The train states of the run; of those that are saved, the newest `keep` stay, at least two."""
        identity = {} if self.identity is None else {"run": self.identity["id"]}
        adopted = [] if self.identity is None else self.identity.get("adopted", [])
        folder = self.folder / CHECKPOINTS
        return training.Checkpoints(folder, keep=max(keep, MIN_KEPT), adopted=adopted, **identity)

    def corpus(self, length: int | None = None) -> data.Corpus:
        """The tokens for training and validation, as they were when the run started."""
        check_data(self.folder, self.identity)
        return data.open_corpus(
            self.folder / CORPUS,
            self.tokenizer,
            length=length or self.length,
            packed=self.packed,
            verify=self.identity is None,  # the fingerprint was checked, and reading gigabytes takes long
        )

    def start(self, rng: Any) -> tuple[Any, models.TransformerLM | None]:
        """The initial model; or the initial adapters, and the base model that they adapt."""
        model = models.create(self.config, rng) if self.origin is None else self.base()
        settings = TrainSettings.from_json(self.settings)
        return (model, None) if settings.lora is None else (settings.adapters(model, rng), model)

    def base(self) -> models.TransformerLM:
        """The model that the run started from."""
        if "run" not in self.origin:
            return pretrained.load_origin(self.origin, self.config)
        parent = open_run(Path(self.origin["folder"]), self.allow_code)
        if parent.identity is None or parent.identity["id"] != self.origin["run"]:
            place = quote_path(self.origin["folder"])
            raise ValueError(
                f"run: expected the run {self.origin['run']} that it started from in {place}, got another run. Put the "
                "old one back."
            )
        model, _ = parent.load(self.origin["step"])
        return models.from_dict(self.config, models.to_dict(model))

    def trained_shapes(self) -> Any:
        """The model or adapters that the run trains, as shapes."""
        settings = TrainSettings.from_json(self.settings)

        def make() -> Any:
            model = models.create(self.config)
            return model if settings.lora is None else settings.adapters(model, 0)

        return jax.eval_shape(make)

    def _check_depth(self, arrays: int) -> None:
        """Refuse more layers than a checkpoint has arrays, before a model of so many layers is built."""
        is_whole = TrainSettings.from_json(self.settings).lora is None and not self.config.scan
        fail_unless(
            not is_whole or self.config.depth <= arrays,
            f"run: expected the depth of the model that was trained, got {self.config.depth:,} layers in {CONFIG} for "
            f"a checkpoint of {arrays} arrays. Put the right {CONFIG} back.",
        )

    def choose_step(self, step: int | None) -> int:
        """Step of a complete checkpoint: the given one, else that with the best validation loss, else the newest."""
        checkpoints = self.checkpoints
        if step is None:
            step = checkpoints.best
        return checkpoints.read(step)["step"]

    def load_trained(self, step: int | None = None) -> tuple[Any, int]:
        """The trained model or adapters of a checkpoint, and its step.

        The default is the checkpoint with the best validation loss, else the newest.
        """
        checkpoints = self.checkpoints
        step = self.choose_step(step)
        self._check_depth(len(checkpoints.read(step)["leaves"]))
        return checkpoints.restore(step, like=self.trained_shapes(), part="model"), step

    def load(self, step: int | None = None) -> tuple[models.TransformerLM, int]:
        """The model at a step, its adapters applied; the default step is that of `load_trained`."""
        trained, step = self.load_trained(step)
        return nn.apply_adapters(self.base(), trained) if isinstance(trained, nn.Adapters) else trained, step


def create_folder(run: Run, corpus: data.Corpus) -> Run:
    """Write the folder of a new run, whole or not at all, and return the run with its identity."""
    check_empty(run.folder)
    with new_folder(run.folder) as folder:
        run.tokenizer.save(folder / TOKENIZER)
        corpus.save(folder / CORPUS)
        (folder / CHECKPOINTS).mkdir()
        model = models.config_to_json(run.config)
        run = dataclasses.replace(run, identity=new_identity(folder, model, run.settings))
        contents = {
            "format": FORMAT,
            "version": jax_attention.__version__,
            "run": run.identity,
            "model": model,
            "settings": run.settings,
            "tokenizer": run.tokenizer.fingerprint,
        }
        if run.origin is not None:
            names = (pretrained.CONFIG, *pretrained.TOKENIZER_FILES)
            of_a_run = "run" in run.origin
            source = Path(run.origin["folder"]) / ORIGIN if of_a_run else Path(run.origin["folder"])
            if source.is_dir():
                pretrained.copy_files(source, folder / ORIGIN, names)
            contents["origin"] = run.origin
        write_json(folder / CONFIG, contents)
    return run


def check_unedited(contents: dict[str, Any]) -> None:
    """Refuse a config that was edited: checkpoints are of another model even if the shapes fit, or of other batches."""
    cures = {"model": "start a new run", "settings": "give other settings as options, with --resume"}
    for part, cure in cures.items():
        expected = contents.get("run", {}).get(part, digest(contents[part]))
        fail_unless(
            digest(contents[part]) == expected,
            f"run: expected the {part} that it was started with in {CONFIG}, got an edited part {part!r}. Undo the "
            f"change, or {cure}.",
        )


def give_identity(run: Run) -> Run:
    """Give an identity to a run from before identities, with the checkpoints that it has now.

    If `config.json` alone lost it, the checkpoints still have the id.
    """
    checkpoints = run.checkpoints
    ids = {checkpoints.read(step).get("run") for step in checkpoints.steps} - {None}
    fail_unless(
        len(ids) < 2,
        f"run: expected checkpoints of one run in {quote_path(run.folder)}, got those of {list_names(sorted(ids))}.",
    )
    contents = read_run_config(run.folder)  # as an earlier version wrote it
    identity = new_identity(run.folder, contents["model"], contents["settings"])
    identity |= {"adopted": checkpoints.steps} | ({"id": ids.pop()} if ids else {})
    change_config(run.folder, lambda contents: contents | {"run": identity})
    return dataclasses.replace(run, identity=identity)


def change_settings(run: Run, settings: dict[str, Any], step: int, changes: dict[str, Any]) -> Run:
    """Write other settings into the config, with the step from which they hold and what they replace."""
    entry = {"step": step, "version": jax_attention.__version__, "changes": changes}

    identity = run.identity | {"settings": digest(settings)}

    def change(contents: dict[str, Any]) -> dict[str, Any]:
        return contents | {"settings": settings, "run": identity, "history": [*contents.get("history", []), entry]}

    change_config(run.folder, change)
    return dataclasses.replace(run, settings=settings, identity=identity)


def change_config(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the config of a run by a changed one."""
    write_json(folder / CONFIG, change(read_json(folder / CONFIG, argument="run")))


def check_empty(folder: Path) -> None:
    """Raise if the folder holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"out: expected a new or empty folder, got {str(folder)!r}, which is not empty. Nothing was written. "
            "Continue that run with --resume, or choose another --out."
        )


def read_run_config(folder: Path) -> dict[str, Any]:
    """The contents of a run's config, of the right types."""
    path = folder / CONFIG
    if not path.is_file():
        other = "a file" if folder.exists() else "which does not exist"
        problem = "which has none" if folder.is_dir() else other
        raise FileNotFoundError(
            f"run: expected the folder of a run, with {CONFIG}, got {str(folder)!r}, {problem}. It is the --out of "
            "`jax-attention train`; `generate`, `evaluate` and `show` also take the folder of a Hugging Face "
            "model."
        )
    contents = read_json(path, argument="run")
    kinds = {"model": dict, "settings": dict, "tokenizer": str}
    if (
        contents.get("format") != FORMAT
        or not all(isinstance(contents.get(name), kind) for name, kind in kinds.items())
        or not _is_origin(contents.get("origin"))
        or not isinstance(contents.get("history", []), list)
        or not ("run" not in contents or is_identity(contents["run"]))
    ):
        raise ValueError(
            f"run: expected a {CONFIG} written by `jax-attention train` ({FORMAT}), got another in {quote_path(path)}."
        )
    return contents


def check_files(folder: Path) -> None:
    """Refuse a run folder in which a part of the run is a link that leads out of it, or no file or folder at all.

    A run reads and writes its parts, so such a link in a folder from elsewhere could have it change any file.
    """
    home = folder.resolve()
    names = (CONFIG, LOCK, TOKENIZER, ORIGIN, CORPUS, CHECKPOINTS, METRICS, RESULTS, TENSORBOARD)
    for path in (path for name in names for path in (folder / name, *(folder / name).rglob("*"))):
        if not os.path.lexists(path):
            continue
        fail_unless(
            not path.is_symlink() or path.resolve().is_relative_to(home),
            f"run: expected files of its own, got {quote_path(path)}, a link out of the folder. If you trust it, put a "
            "copy in its place.",
        )
        fail_unless(
            path.is_file() or path.is_dir() or path.is_symlink(),
            f"run: expected files and folders, got {quote_path(path)}, which is neither. Remove it.",
        )


def open_run(folder: Path, allow_code: tuple[str, ...] = ()) -> Run:
    """Open a run that a training command wrote; of the modules that its config names, only the allowed are imported."""
    contents = read_run_config(folder)
    check_files(folder)
    check_unedited(contents)
    tokenizer = data.load_tokenizer(folder / TOKENIZER)
    TrainSettings.from_json(contents["settings"])  # checks names and types
    config = models.config_from_json(contents["model"], allow_code)
    fail_unless(
        config.depth <= MAX_LAYERS,
        f"run: expected at most {MAX_LAYERS:,} layers, got {config.depth:,} in {quote_path(folder / CONFIG)}.",
    )
    if tokenizer.vocab_size > config.vocab_size or tokenizer.fingerprint != contents["tokenizer"]:
        raise ValueError(
            "run: expected the tokenizer that the model was trained with "
            f"({contents['tokenizer']}, at most {config.vocab_size} ids), "
            f"got one of {tokenizer.vocab_size} ids, {tokenizer.fingerprint}, in {str(folder / TOKENIZER)!r}."
        )
    origin, identity = contents.get("origin"), contents.get("run")
    return Run(folder, config, contents["settings"], tokenizer, origin, identity, allow_code)


def _is_origin(x: Any) -> bool:
    """Whether the origin in a config, which may come from elsewhere, is one that a run stores."""
    if x is None:
        return True
    kinds = {"folder": str, "run": str, "step": int} if isinstance(x, dict) and "run" in x else {"folder": str}
    kinds |= {name: str for name in ("family", "fingerprint") if isinstance(x, dict) and name in x}
    return isinstance(x, dict) and all(isinstance(x.get(name), kind) for name, kind in kinds.items())


def open_model(folder: Path, allow_code: tuple[str, ...] = ()) -> Run | pretrained.Pretrained:
    """Open a folder that holds a model: a run, or a Hugging Face folder."""
    return pretrained.open_pretrained(folder) if pretrained.is_pretrained(folder) else open_run(folder, allow_code)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, completely or not at all."""
    with replaced_file(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
