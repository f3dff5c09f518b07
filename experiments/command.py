"""The command line shared by all experiments: parse options, run, print, write results.json and the figures.

Each experiment has a module `report` with `Options` (a frozen dataclass, one field for each flag) and `main(options)`,
which runs the experiment, prints its tables and ends with `save`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from matplotlib.figure import Figure

from experiments import figures, record

SCRATCH = Path(".experiments")


class Outcome(NamedTuple):
    """Results of a command in memory, its figures by name, and the folder that it wrote to."""

    results: Any
    figures: dict[str, Figure]
    folder: Path


def main(name: str) -> None:
    """Run the experiment of this name with the options of the command line."""
    report = importlib.import_module(f"experiments.{name}.report")
    report.main(tyro.cli(report.Options))


def chosen_config(options: Any, small: Any) -> Any:
    """The config of a command: that of the options, or with --small the small one with the changes of the options.

    A field with its default counts as not changed, as the command line does not say which options were given.
    """
    return _with_changes(small, type(small)(), options.config) if options.small else options.config


def _with_changes(base: Any, default: Any, changed: Any) -> Any:
    """The base, with the values that differ between two others of its type; fields of fields one by one."""
    if not (dataclasses.is_dataclass(base) and type(base) is type(default) is type(changed)):
        return base if changed == default else changed
    parts = {}
    for field in dataclasses.fields(base):
        parts[field.name] = _with_changes(*(getattr(x, field.name) for x in (base, default, changed)))
    return dataclasses.replace(base, **parts)


def output_folder(options: Any, home: Path) -> Path:
    """Folder that a command writes to; only the command without options overwrites the committed results.

    Args:
        options: a dataclass with the field `out`.
        home: folder of the experiment.

    Returns:
        `options.out` if it is set, `home` if every option has its default, else `.experiments/NAME`. A command with a
        required option never has only defaults.
    """
    if options.out is not None:
        return options.out
    required = [f for f in dataclasses.fields(options) if f.default is dataclasses.MISSING is f.default_factory]
    has_only_defaults = not required and options == type(options)()
    return home if has_only_defaults else SCRATCH / home.name


def save(
    options: Any,
    home: Path,
    config: Any,
    seeds: Sequence[int],
    results: Any,
    numbers: dict[str, Any],
    draw: Callable[[], dict[str, Figure]],
) -> Outcome:
    """Write results.json, then draw and write the figures as NAME.png.

    `draw` is a function and not its figures, so that an error while drawing loses no numbers.

    Args:
        options: options of the command; they decide the folder (see `output_folder`).
        home: folder of the experiment.
        config: the frozen dataclass that the experiment ran with.
        seeds: all seeds that the numbers depend on.
        results: results in memory, returned as they are.
        numbers: numbers for results.json.
        draw: makes the figures, by the names of their files.
    """
    folder = output_folder(options, home)
    record.write_results(folder, config, seeds, numbers)
    drawn = draw()
    for name, figure in drawn.items():
        figures.save(figure, folder / f"{name}.png")
    return Outcome(results, drawn, folder)
