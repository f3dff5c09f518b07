"""The index of the experiments: every system answered, files that exist, and pages that say what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.experiments import said
from tests.experiments.folder import KEYS, PNG

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
"""The systems that the library is to contain, by the rows of their list."""
DASH = "\u2013"
"""In place of an id, where an experiment is beyond the list."""
PACKAGES = sorted(path.parent.name for path in HERE.glob("*/__main__.py"))


def rows(section: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    found = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", INDEX, re.M | re.S)
    assert found, section
    return [line.strip("| ").split(" | ") for line in found[1].splitlines() if re.match(r"\| [A-E–]", line)]  # noqa: RUF001


def numbers(name: str) -> dict:
    return json.loads((HERE / name / "results.json").read_text(encoding="utf-8"))["numbers"]


def test_every_system_is_answered():
    """By one experiment or by several."""
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
def test_every_experiment_says_question_command_time_result(name):
    folder = HERE / name
    top = "".join((folder / file).read_text(encoding="utf-8")[:1500] for file in ("__init__.py", "__main__.py"))
    for word in ("Question", "Command", "Time", "Result"):
        assert re.search(rf"^{word}: +\S", top, re.M), word


@pytest.mark.parametrize("name", PACKAGES)
def test_the_time_at_the_top_is_the_measured_one(name):
    top = (HERE / name / "__init__.py").read_text(encoding="utf-8")
    ((count, unit),) = re.findall(r"^Time: +([\d.]+) (seconds|minutes) of CPU time\.$", top, re.M)
    measured = json.loads((HERE / name / "results.json").read_text(encoding="utf-8"))["cpu_seconds"]
    assert 0.8 < float(count) * {"seconds": 1, "minutes": 60}[unit] / measured < 1.25, measured


@pytest.mark.parametrize("name", PACKAGES)
def test_pages_say_what_was_measured(name):
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")
    wanted = getattr(said, name)(numbers(name))
    assert wanted
    assert [text for text in wanted if text not in page] == []


NUMBER = re.compile(r"(?<![\w.,])-?\d+(?:,\d{3})*(?:\.(\d+))?(?:e(-?\d+))?(?!\w)")


def figures_in(text: str) -> dict[str, tuple[float, float]]:
    """Every number of a text by how it is written: its value, and half a unit of its last digit."""
    return {
        found[0]: (float(found[0].replace(",", "")), 0.5 * 10.0 ** (int(found[2] or 0) - len(found[1] or "")))
        for found in NUMBER.finditer(text.replace("+", ""))
    }


def unsaid(claim: str, page: str) -> list[str]:
    """The numbers of a claim that no number of the page rounds to; percents may be shares there."""
    there = [value for value, _ in figures_in(page).values()]
    there += [100 * value for value in there if 0 < value < 1]
    return [
        text
        for text, (value, half) in figures_in(claim).items()
        if not any(abs(other - value) <= 1.000001 * half for other in there)
    ]


def test_what_is_unsaid():
    page = "| dot | 0.953 | -12.5 | 1,234 | 8.1e-09 | 62 times |"
    assert unsaid("95 % in 1234 steps, 0.95, 8e-9, -12.5 and 62", page) == []
    assert unsaid("0.96, 94 %, 9e-9, 12.5, 63, 8", page) == ["0.96", "94", "9e-9", "12.5", "63", "8"]


@pytest.mark.parametrize("row", rows("Answers"), ids=lambda row: row[0])
def test_answers_are_those_of_the_page(row):
    link = re.search(r"\]\((.*?)(#.*)?\)", row[1])[1]
    assert unsaid(row[2], (HERE / link).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", PACKAGES)
def test_results_at_the_top_are_those_of_the_page(name):
    top = (HERE / name / "__init__.py").read_text(encoding="utf-8").split('"""')[1]
    (result,) = re.findall(r"^Result:(.*?)(?:\n\n|\Z)", top, re.M | re.S)
    assert unsaid(result, (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")) == []


def test_c4_the_page_of_three_challenges_says_what_was_measured():
    page = (ROOT / "docs" / "experiments" / "challenges.md").read_text(encoding="utf-8")
    memory = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text(encoding="utf-8"))["growth"]
    wanted = [str(memory["jax_attention"][what]["MiB"]["32768"]) for what in ("forward", "gradient")]
    hidden = numbers("digits")["apart"]["hidden"]
    wanted += [
        f"{np.mean(hidden[way], 0)[order, 2, 1]:.2f}" for way in ("out of sight", "white paper") for order in (0, 1)
    ]
    wanted += [f"{np.mean(numbers('cat_sat')['softmax']['right'], 0)[place]:.2f}" for place in (2, 5)]
    wanted += [f"{weight:.2f}" for (weight,) in numbers("self_attention_zh")["one head"]["watched_after"]]
    assert [number for number in wanted if number not in page] == []


def test_committed_results_hold_the_claims():
    reach = numbers("inside_a_transformer")["E5"]
    assert reach["above_the_diagonal"] == 0.0
    assert (np.triu(reach["masked"], 1) == 0).all()
    for norms in map(
        np.array, (numbers("inside_a_transformer")["E4"][kind] for kind in ("norm, no residual", "residual and norm"))
    ):
        assert (norms[:, 0] > 0.1 * norms[:, -1]).all(), "the norm alone holds the gradient"
    layers = numbers("self_attention_zh")
    assert min(layers["one head"]["falls"] + layers["several heads"]["falls"]) > 100
    products = numbers("batched_product")
    assert max(products["distances"].values()) < 1e-6
    assert np.shape(products["products"]) == (10, 3, 5)


def test_every_system_has_a_test_of_its_name():
    """C4 is three claims that other systems measure, and a page."""
    names = re.findall(r"^def (test_\w+)", "\n".join(path.read_text("utf-8") for path in TESTS.glob("test_*.py")), re.M)
    tested = {part.upper() for name in names for part in name.split("_") if re.fullmatch(r"[a-e]\d+", part)}
    assert tested == SYSTEMS


def test_log_is_dated():
    titles = re.findall(r"^## (.*)$", (HERE / "LOG.md").read_text(encoding="utf-8"), re.M)
    assert titles
    assert all(re.match(r"\d{4}-\d\d-\d\d: \S", title) for title in titles)
