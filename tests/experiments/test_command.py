"""Command of an experiment: which folder it writes to, and numbers that survive an error while drawing."""

from __future__ import annotations

import importlib
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from matplotlib.figure import Figure

from experiments import command
from experiments.soft_lookup import Config
from tests.experiments.outputs import read_numbers

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py"))

SMALL_ONES = [name for name in PACKAGES if "SMALL" in (ROOT / "experiments" / name / "report.py").read_text("utf-8")]


def report_of(name):
    return importlib.import_module(f"experiments.{name}.report")


def test_results_and_figures_are_saved_together(tmp_path):
    options = report_of("soft_lookup").Options(out=tmp_path / "new")
    figures = {"one": Figure(), "other": Figure()}
    outcome = command.save(options, tmp_path, Config(), (), "results", {"x": 1}, lambda: figures)
    assert outcome == ("results", figures, tmp_path / "new")
    assert read_numbers(tmp_path / "new", "one.png", "other.png") == {"x": 1}


def test_a_figure_that_fails_loses_no_numbers(tmp_path):
    options = report_of("soft_lookup").Options(out=tmp_path)
    with pytest.raises(ZeroDivisionError):
        command.save(options, tmp_path, Config(), (), None, {"x": 1}, lambda: {"one": 1 / 0})
    assert read_numbers(tmp_path) == {"x": 1}


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "shakespeare_char"])
def test_only_the_command_without_options_overwrites_committed_results(name):
    report = report_of(name)
    options, home = report.Options(), report.HERE
    assert command.output_folder(options, home) == home == ROOT / "experiments" / name
    assert command.output_folder(replace(options, out=Path("elsewhere")), home) == Path("elsewhere")
    for changed in ({"small": True}, {"text": Path("other.txt")}, {"pairs": Path("other.tsv")}):
        if set(changed) <= {field.name for field in fields(options)}:
            assert command.output_folder(replace(options, **changed), home) == Path(".experiments") / name


def test_a_command_with_a_required_option_overwrites_nothing():
    report = report_of("shakespeare_char")
    options = report.Options(Path("input.txt"))
    assert command.output_folder(options, report.HERE) == Path(".experiments") / "shakespeare_char"


@pytest.mark.parametrize("name", PACKAGES)
def test_the_command_line_starts_the_report(name):
    lines = (ROOT / "experiments" / name / "__main__.py").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f'"""`python -m experiments.{name}`."""'
    assert lines[2:] == ["from experiments import command", "", f'command.main("{name}")']


def test_the_command_line_becomes_options(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["soft_lookup", "--config.shop-sharpness", "0", "--out", str(tmp_path)])
    command.main("soft_lookup")
    assert capsys.readouterr().out.count("0.2500") == 4
    read_numbers(tmp_path, "lookups.png")


@pytest.mark.parametrize("name", SMALL_ONES)
def test_small_keeps_the_changes_of_config(name):
    experiment = importlib.import_module(report_of(name).Config.__module__)
    config = experiment.Config()
    assert command.chosen_config(Chosen(config, small=True), experiment.SMALL) == experiment.SMALL
    assert command.chosen_config(Chosen(config, small=False), experiment.SMALL) == config
    path, changed = change_a_number(config)
    chosen = command.chosen_config(Chosen(changed, small=True), experiment.SMALL)
    small, expected = experiment.SMALL, changed
    for part in path:
        chosen, small, expected = (getattr(x, part) for x in (chosen, small, expected))
    assert chosen == expected != small


class Chosen(NamedTuple):
    """Options as far as `chosen_config` reads them."""

    config: Any
    small: bool


def change_a_number(config):
    """The path of the first number in a config, and the config with one more there."""
    for field in fields(config):
        x = getattr(config, field.name)
        if type(x) in (int, float):
            return [field.name], replace(config, **{field.name: x + 1})
        if is_dataclass(x) and (found := change_a_number(x)):
            return [field.name, *found[0]], replace(config, **{field.name: found[1]})
    return None
