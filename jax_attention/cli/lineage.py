"""Runs that go on from another run: resumed with other settings, or new ones from an old one's weights or state."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax_attention import data, models, training
from jax_attention.cli import pretrained, run_folder
from jax_attention.cli.settings import TrainSettings
from jax_attention.core.checks import fail_unless

CHANGEABLE = {"keep", "prompt", "sample_tokens", "tensorboard"}
CHANGEABLE |= {f"optimizer.{field.name}" for field in dataclasses.fields(training.OptimizerConfig)}
CHANGEABLE |= {f"loop.{name}" for name in ("steps", "log_every", "evaluate_every", "sample_every", "checkpoint_every")}
CHANGEABLE |= {"loop.save_minutes", "loop.stop_after"}
"""Settings that a resumed run may change: they alter neither its model nor the batches of its steps."""


@dataclass(frozen=True)
class RunOrigin:
    """A checkpoint of a run as the beginning of another run, with what `pretrained.Pretrained` has."""

    run: run_folder.Run
    step: int

    @property
    def config(self) -> models.LMConfig:
        """Config of the run's model."""
        return self.run.config

    @property
    def tokenizer(self) -> data.Tokenizer:
        """Tokenizer of the run."""
        return self.run.tokenizer

    @property
    def length(self) -> int:
        """Tokens per row of the run."""
        return self.run.length

    def origin(self) -> dict[str, Any]:
        """What a run stores about its beginning: folder, id and step of the other run, and the family, if any."""
        family = (self.run.origin or {}).get("family")
        known = {} if family is None else {"family": family}
        return {"folder": str(self.run.folder.absolute()), "run": self.run.identity["id"], "step": self.step, **known}


def open_origin(folder: Path, step: int | None, allow_code: tuple[str, ...] = ()) -> pretrained.Pretrained | RunOrigin:
    """Open a Hugging Face model, or a checkpoint of a run: that with the best validation loss, or a given step."""
    if pretrained.is_pretrained(folder) or not (folder / run_folder.CONFIG).is_file():
        fail_unless(step is None, f"from_step: expected none with the folder of a model, got {step}. Leave it out.")
        return pretrained.open_origin(folder)
    run = run_folder.open_run(folder, allow_code)
    if run.identity is None:
        raise ValueError(
            f"from: expected a run with an identity, got {str(folder)!r}, which an earlier version began. Resume it "
            "once, which gives it one: jax-attention train --resume --out FOLDER."
        )
    return RunOrigin(run, run.choose_step(step))


def check_whole_state(origin: pretrained.Pretrained | RunOrigin | None, settings: TrainSettings) -> None:
    """Refuse to take over the state of what has none, or of adapters, which need the base of the old run."""
    fail_unless(isinstance(origin, RunOrigin), "whole_state: expected --from RUN with it, got no run. Leave it out.")
    ranks = (TrainSettings.from_json(origin.run.settings).lora, settings.lora)
    fail_unless(
        ranks == (None, None),
        "whole_state: expected runs that train whole models, got adapters. Resume that run, or leave it out.",
    )


def restored_state(origin: RunOrigin, like: Any) -> Any:
    """The whole train state of the checkpoint: weights, moments, step, random key."""
    return origin.run.checkpoints.restore(origin.step, like=like)


def saved_settings(folder: Path) -> TrainSettings:
    """The settings of a run."""
    return TrainSettings.from_json(run_folder.read_run_config(folder)["settings"])


def changed_settings(old: TrainSettings, new: TrainSettings) -> dict[str, list[Any]]:
    """Settings that differ, by name, each with its old and new value; those that must stay are refused."""
    old_values, new_values = _flat(old), _flat(new)
    changes = {name: [x, new_values[name]] for name, x in old_values.items() if x != new_values[name]}
    wrong = [f"--{name.rpartition('.')[2].replace('_', '-')}" for name in changes if name not in CHANGEABLE]
    fail_unless(
        not wrong,
        f"resume: expected the run's own {', '.join(wrong)}, which decide its model and batches, got others. Leave "
        "them out, or start a new run from this one with --from.",
    )
    return changes


def _flat(settings: TrainSettings) -> dict[str, Any]:
    nested = settings.to_json()
    inner = {f"{part}.{name}": x for part in ("optimizer", "loop") for name, x in nested[part].items()}
    return {name: x for name, x in nested.items() if name not in ("optimizer", "loop")} | inner


def check_steps(settings: TrainSettings, step: int) -> None:
    """Refuse a training that ends before the step at which it begins."""
    fail_unless(
        settings.loop.steps >= step,
        f"steps: expected at least {step}, the steps that are done already, got {settings.loop.steps}. It counts "
        "all steps of the run.",
    )
