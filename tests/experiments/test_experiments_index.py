"""Index of the experiments: every system has an answer, files exist, and pages contain the measured numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.experiments import page_claims
from tests.experiments.outputs import KEYS, PNG

ROOT = Path(__file__).parents[2]
HERE = ROOT / "experiments"
TESTS = Path(__file__).parent
INDEX = (HERE / "README.md").read_text(encoding="utf-8")
SYSTEMS = {
    *(f"A{i}" for i in range(1, 6)),
    *(f"B{i}" for i in range(1, 12)),
    *(f"C{i}" for i in range(1, 5)),
    "D1",
    *(f"E{i}" for i in range(1, 8)),
}
"""Systems that the library is to contain, by the rows of their list."""
DASH = "\u2013"
"""Id of an experiment that is not in the list."""
PACKAGES = sorted(path.parent.name for path in HERE.glob("*/__main__.py"))


def rows(section: str) -> list[list[str]]:
    """Cells of the table below a heading."""
    match = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", INDEX, re.M | re.S)
    assert match, section
    return [line.strip("| ").split(" | ") for line in match[1].splitlines() if re.match(r"\| [A-E–]", line)]  # noqa: RUF001


def numbers(name: str) -> dict:
    return json.loads((HERE / name / "results.json").read_text(encoding="utf-8"))["numbers"]


def test_every_system_is_answered():
    """One experiment or several answer for a system."""
    assert {cell for row in rows("Answers") for cell in row[0].split(", ")} - {DASH} == SYSTEMS
    assert {len(row) for row in rows("Answers")} == {5}


@pytest.mark.parametrize("name", PACKAGES)
def test_every_experiment_is_in_the_index_with_a_command_that_exists(name):
    commands = [row[-1] for row in rows("Answers")]
    assert any(f"python -m experiments.{name}" in command for command in commands)
    named = set(re.findall(r"experiments\.([a-z]\w*)", INDEX))
    assert named <= set(PACKAGES)
    assert f"experiments.{name} " in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_experiment_has_its_committed_results(name):
    results = json.loads((HERE / name / "results.json").read_text(encoding="utf-8"))
    assert list(results) == KEYS
    assert results["command"].startswith(f"python -m experiments.{name}")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_experiment_has_a_page_that_shows_its_figures(name):
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")
    pictures = sorted((HERE / name).glob("*.png"))
    assert pictures
    for picture in pictures:
        assert f"../../experiments/{name}/{picture.name}" in page, picture.name
        assert picture.read_bytes().startswith(PNG)
        assert picture.stat().st_size < 2**17
    assert f"python -m experiments.{name}" in page


@pytest.mark.parametrize("name", PACKAGES)
def test_every_experiment_states_question_command_time_result(name):
    top = (HERE / name / "__init__.py").read_text(encoding="utf-8").split('"""')[1]
    for word in ("Question", "Command", "Time", "Result"):
        assert re.search(rf"^{word}: +\S", top, re.M), word


@pytest.mark.parametrize("name", PACKAGES)
def test_the_time_in_the_docstring_is_the_measured_one(name):
    top = (HERE / name / "__init__.py").read_text(encoding="utf-8")
    ((count, unit),) = re.findall(r"^Time: +([\d.]+) (seconds|minutes) of CPU time\.$", top, re.M)
    measured = json.loads((HERE / name / "results.json").read_text(encoding="utf-8"))["cpu_seconds"]
    assert 0.8 < float(count) * {"seconds": 1, "minutes": 60}[unit] / measured < 1.25, measured


@pytest.mark.parametrize("name", PACKAGES)
def test_pages_contain_the_measured_numbers(name):
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")
    claims = getattr(page_claims, name)(numbers(name))
    assert claims
    assert [text for text in claims if text not in page] == []


NUMBER = re.compile(r"(?<![\w.,])-?\d+(?:,\d{3})*(?:\.(\d+))?(?:e(-?\d+))?(?!\w)")


def numbers_in(text: str) -> dict[str, tuple[float, float]]:
    """Every number of a text, as it is written: its value, and half a unit of its last digit."""
    return {
        match[0]: (float(match[0].replace(",", "")), 0.5 * 10.0 ** (int(match[2] or 0) - len(match[1] or "")))
        for match in NUMBER.finditer(text.replace("+", ""))
    }


def missing_numbers(claim: str, page: str) -> list[str]:
    """Numbers of a claim that no number of the page rounds to; a percentage may be a share on the page."""
    on_page = [value for value, _ in numbers_in(page).values()]
    on_page += [100 * value for value in on_page if 0 < value < 1]
    return [
        text
        for text, (value, half) in numbers_in(claim).items()
        if not any(abs(other - value) <= 1.000001 * half for other in on_page)
    ]


def test_missing_numbers_are_those_that_the_page_does_not_round_to():
    page = "| dot | 0.953 | -12.5 | 1,234 | 8.1e-09 | 62 times |"
    assert missing_numbers("95 % in 1234 steps, 0.95, 8e-9, -12.5 and 62", page) == []
    assert missing_numbers("0.96, 94 %, 9e-9, 12.5, 63, 8", page) == ["0.96", "94", "9e-9", "12.5", "63", "8"]


@pytest.mark.parametrize("row", rows("Answers"), ids=lambda row: row[0])
def test_answers_are_those_of_the_page(row):
    link = re.search(r"\]\((.*?)(#.*)?\)", row[1])[1]
    assert missing_numbers(row[2], (HERE / link).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", PACKAGES)
def test_results_in_the_docstring_are_those_of_the_page(name):
    top = (HERE / name / "__init__.py").read_text(encoding="utf-8").split('"""')[1]
    (result,) = re.findall(r"^Result:(.*?)(?:\n\n|\Z)", top, re.M | re.S)
    assert missing_numbers(result, (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")) == []


def test_c4_the_page_of_three_challenges_contains_the_measured_numbers():
    page = (ROOT / "docs" / "experiments" / "challenges.md").read_text(encoding="utf-8")
    memory = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text(encoding="utf-8"))["growth"]
    claims = [str(memory["jax_attention"][what]["MiB"]["32768"]) for what in ("forward", "gradient")]
    hidden = numbers("digits")["apart"]["hidden"]
    claims += [
        f"{np.mean(hidden[way], 0)[order, 2, 1]:.2f}" for way in ("out of sight", "white paper") for order in (0, 1)
    ]
    claims += [f"{np.mean(numbers('cat_sat')['softmax']['right'], 0)[place]:.2f}" for place in (2, 5)]
    claims += [f"{weight:.2f}" for (weight,) in numbers("self_attention_zh")["one head"]["weight_after"]]
    assert [number for number in claims if number not in page] == []


def test_committed_results_hold_the_claims():
    reach = numbers("inside_a_transformer")["E5"]
    assert reach["above_the_diagonal"] == 0.0
    assert (np.triu(reach["masked"], 1) == 0).all()
    for norms in map(
        np.array, (numbers("inside_a_transformer")["E4"][kind] for kind in ("norm, no residual", "residual and norm"))
    ):
        assert (norms[:, 0] > 0.1 * norms[:, -1]).all(), "the norm alone holds the gradient"
    layers = numbers("self_attention_zh")
    assert min(layers["one head"]["loss_ratio"] + layers["several heads"]["loss_ratio"]) > 100
    products = numbers("batched_product")
    assert max(products["distances"].values()) < 1e-6
    assert np.shape(products["products"]) == (10, 3, 5)


def test_every_system_has_a_test_of_its_name():
    """C4 is a page with three claims that other systems measure."""
    names = re.findall(r"^def (test_\w+)", "\n".join(path.read_text("utf-8") for path in TESTS.glob("test_*.py")), re.M)
    tested = {part.upper() for name in names for part in name.split("_") if re.fullmatch(r"[a-e]\d+", part)}
    assert tested == SYSTEMS


def test_log_is_dated():
    titles = re.findall(r"^## (.*)$", (HERE / "LOG.md").read_text(encoding="utf-8"), re.M)
    assert titles
    assert all(re.match(r"\d{4}-\d\d-\d\d: \S", title) for title in titles)
