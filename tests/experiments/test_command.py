"""Command of an experiment: which folder it writes to, and numbers that survive an error while drawing."""

from __future__ import annotations

import importlib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments import command
from experiments.soft_lookup import Config
from tests.experiments.outputs import read_numbers

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py"))


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
