"""The index of the experiments: every system answered, files that exist, and pages that say what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from experiments import seeds
from experiments.generation import judging
from tests.experiments.folder import KEYS, PNG

ROOT = Path(__file__).parents[2]
HERE = ROOT / "experiments"
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


def said(name: str) -> list[str]:
    """What the page of an experiment must say, written from its results."""
    found = numbers(name)
    if name == "soft_lookup":
        lookups = (found["unasked"], found["living_things"], found["shop"])
        return [f"{weight:.2f}" for weights in lookups for weight in weights.values() if weight > 0.04]
    if name == "self_attention_zh":
        falls = [f"{round(min(found['one head']['falls']))} times"]
        ends = [f"{weight:.2f}" for (weight,) in found["one head"]["watched_after"]]
        one = [f"{found['one head'][when][0][0]:.2f}" for when in ("watched_before", "watched_after")]
        return [*falls, ", ".join(ends), *one, f"{found['no parameters']['loss']:.1e}"]
    if name == "cat_sat":
        softmax = found["softmax"]
        weights = np.mean(softmax["weights_masked"], 1)
        table = ["| " + " | ".join(f"{weight:.2f}" for weight in row) + " | 1 |" for row in weights]
        right = [f"{share:.2f}" for share in [*np.mean(softmax["right"], 0), np.mean(found["alone"]["right"])]]
        sums = ", ".join(f"{row.sum():.2f}" for row in np.mean(found["sigmoid"]["weights_masked"], 1))
        lengths = [f"{np.linalg.norm(softmax[which][0]):.2f}" for which in ("mixed_masked", "mixed_read")]
        read = [", ".join(f"{row[i]:.2f}" for row in np.mean(softmax["weights_read"], 1)) for i in (1, 5)]
        return [*table, "| " + " | ".join(right) + " |", sums, *lengths, *read]
    if name == "digits":
        table = {"commonest": found["commonest"], "blind": np.mean(found["blind"], 0)}
        table |= {key: np.mean(found["apart"][key], 0) for key in ("right", "written", "elsewhere")}
        table["together"] = np.mean(found["together"]["right"], 0)
        ways = found["apart"]["hidden"].values()
        hidden = [np.mean(way, 0)[:, 2, 1] for way in ways]  # 4 patches, the digit word
        return [" | ".join(f"{share:.2f}" for share in row) for row in (*table.values(), *hidden)]
    if name == "inside_a_transformer":
        ratios = [np.median([row[0] / row[-1] for row in norms]) for norms in found["E4"].values()]
        trained = [made for runs in found["E6"]["trained"].values() for made in runs]
        ends = [f"{made['right']} of {made['asked']}" for made in trained]
        return [*(f"{ratio:.1e}" if ratio < 0.1 else f"{ratio:.2f}" for ratio in ratios), *ends]
    if name == "generation":
        counts = [f"{x['nats_per_token']:.3f}" for both in found["counts"].values() for x in both.values()]
        losses, checks = [], []
        for made in found["models"].values():
            losses += [seeds.said(held["nats_per_token"]) for held in made["held_out"].values()]
            checks += [f"{made['judged'][check]['mean']:.3f}" for check in ("sentences", *judging.CHECKS)]
        written = [text for made in found["models"].values() for text in made["written"][:2]]
        return [*counts, *losses, *checks, *written]
    if name == "translation":
        made = {model: x for model, x in found.items() if isinstance(x, dict) and "cost" in x}
        scores = {
            model: " | ".join(f"{score:.0f}" for score in np.mean(x["bleu"], axis=0)) for model, x in made.items()
        }
        costs = {model: f"{x['cost']['time']:.2f} | {x['cost']['mib']:.0f}" for model, x in made.items()}
        shares = {model: np.mean(x["agreement"], axis=0)[-1] for model, x in made.items() if "agreement" in x}
        return [
            *(f"| {model} | {x['parameters']:,} | {costs[model]} | {scores[model]} |" for model, x in made.items()),
            *(
                f"| {model} | {' | '.join(f'{share:.2f}' for share in by_length)} |"
                for model, by_length in shares.items()
            ),
        ]
    if name == "swap_the_rule":
        rules = {rule: row for rule, row in found.items() if isinstance(row, dict)}
        means = {rule: (row["band"]["mean"], row["difference_band"]["mean"]) for rule, row in rules.items()}
        return [f"| {rule} | {loss:.3f} | {difference:+.3f} (" for rule, (loss, difference) in means.items()]
    if name == "length_extrapolation":
        means = [[f"{band['mean']:.3f}" for band in row["band"].values()] for row in found.values()]
        rises = [f"{row['rise_band']['mean']:+.3f}" for row in found.values()]
        return [
            f"| {reading} | {' | '.join(row)} | {rise} ("
            for reading, row, rise in zip(found, means, rises, strict=True)
        ]
    if name == "question_answering":
        shares = [seeds.said(share) for made in found["answers"].values() for share in made["right"].values()]
        looks = [f"{np.mean(x['most_at_answer']):.3f}" for x in found["looks"].values()]
        return [*shares, *looks, *(f"{chance['guessed']:.3f}" for chance in found["chance"].values())]
    if name == "summarisation":
        leads = [f"{lead['rouge2']:.1f}" for leads in found["leads"].values() for lead in leads.values()]
        scores = [each for made in found["models"].values() for each in made["scores"].values()]
        exact = [seeds.said(each["exact"]) for each in scores]
        return [*leads, *exact, *(f"{each['rouge2']['mean']:.1f}" for each in scores)]
    if name == "rules_side_by_side":
        shares = [np.mean(rule["sequences"]) for task in ("reverse", "recall") for rule in found[task].values()]
        dense = [f"{found['memory_mib'][rule]['reference']:.0f} " for rule in ("additive, plain sum",)]
        errors = [np.mean(rule["error"]) for task in found["layer"].values() for rule in task.values()]
        return [*(f"| {share:.2f} (" for share in shares), *dense, *(f" {error:.2g} |" for error in errors)]
    if name == "long_range":
        few, many = found["recall"].values()
        worst = [f"{np.min(many['dot'][part]):.3f}" for part in ("inside", "beyond")]
        none = many["no attention"]["bands"]["inside"]["mean"]
        each = [f"{share:.2f}" for share in np.mean(few["Transformer"]["inside"], axis=1)]
        mib = [f"{layer['values'][-1]:.1f}" for layer in found["mib"].values()]
        powers = [f"| {layer['growth']:.2f} |" for part in ("mib", "seconds") for layer in found[part].values()]
        return [*worst, f"{min(none):.2f} to {max(none):.2f}", *each, *mib, *powers]
    return []


@pytest.mark.parametrize("name", [name for name in PACKAGES if said(name)])
def test_pages_say_what_was_measured(name):
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")
    assert [number for number in said(name) if number not in page] == []


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


def test_the_page_of_three_challenges_says_what_was_measured():
    page = (ROOT / "docs" / "experiments" / "challenges.md").read_text(encoding="utf-8")
    memory = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text(encoding="utf-8"))["growth"]
    said = [str(memory["jax_attention"][what]["MiB"]["32768"]) for what in ("forward", "gradient")]
    hidden = numbers("digits")["apart"]["hidden"]
    said += [
        f"{np.mean(hidden[way], 0)[order, 2, 1]:.2f}" for way in ("out of sight", "white paper") for order in (0, 1)
    ]
    said += [f"{np.mean(numbers('cat_sat')['softmax']['right'], 0)[place]:.2f}" for place in (2, 5)]
    said += [f"{weight:.2f}" for (weight,) in numbers("self_attention_zh")["one head"]["watched_after"]]
    assert [number for number in said if number not in page] == []


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


def test_log_is_dated():
    titles = re.findall(r"^## (.*)$", (HERE / "LOG.md").read_text(encoding="utf-8"), re.M)
    assert titles
    assert all(re.match(r"\d{4}-\d\d-\d\d: \S", title) for title in titles)
