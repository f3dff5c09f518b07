"""What the page of each experiment must say, written from its results: one function for each, of its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments import seeds
from experiments.generation import judging

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
Numbers = dict[str, Any]


def soft_lookup(found: Numbers) -> list[str]:
    lookups = (found["unasked"], found["living_things"], found["shop"])
    return [f"{weight:.2f}" for weights in lookups for weight in weights.values() if weight > 0.04]


def self_attention_zh(found: Numbers) -> list[str]:
    falls = [f"{round(min(found['one head']['falls']))} times"]
    ends = [f"{weight:.2f}" for (weight,) in found["one head"]["watched_after"]]
    one = [f"{found['one head'][when][0][0]:.2f}" for when in ("watched_before", "watched_after")]
    return [*falls, ", ".join(ends), *one, f"{found['no parameters']['loss']:.1e}"]


def cat_sat(found: Numbers) -> list[str]:
    softmax = found["softmax"]
    weights = np.mean(softmax["weights_masked"], 1)
    table = ["| " + " | ".join(f"{weight:.2f}" for weight in row) + " | 1 |" for row in weights]
    right = [f"{share:.2f}" for share in [*np.mean(softmax["right"], 0), np.mean(found["alone"]["right"])]]
    sums = ", ".join(f"{row.sum():.2f}" for row in np.mean(found["sigmoid"]["weights_masked"], 1))
    lengths = [f"{np.linalg.norm(softmax[which][0]):.2f}" for which in ("mixed_masked", "mixed_read")]
    read = [", ".join(f"{row[i]:.2f}" for row in np.mean(softmax["weights_read"], 1)) for i in (1, 5)]
    return [*table, "| " + " | ".join(right) + " |", sums, *lengths, *read]


def digits(found: Numbers) -> list[str]:
    table = {"commonest": found["commonest"], "blind": np.mean(found["blind"], 0)}
    table |= {key: np.mean(found["apart"][key], 0) for key in ("right", "written", "elsewhere")}
    table["together"] = np.mean(found["together"]["right"], 0)
    ways = found["apart"]["hidden"].values()
    hidden = [np.mean(way, 0)[:, 2, 1] for way in ways]  # 4 patches, the digit word
    return [" | ".join(f"{share:.2f}" for share in row) for row in (*table.values(), *hidden)]


def inside_a_transformer(found: Numbers) -> list[str]:
    ratios = [np.median([row[0] / row[-1] for row in norms]) for norms in found["E4"].values()]
    trained = [made for runs in found["E6"]["trained"].values() for made in runs]
    ends = [f"{made['right']} of {made['asked']}" for made in trained]
    return [*(f"{ratio:.1e}" if ratio < 0.1 else f"{ratio:.2f}" for ratio in ratios), *ends]


def generation(found: Numbers) -> list[str]:
    counts = [f"{x['nats_per_token']:.3f}" for both in found["counts"].values() for x in both.values()]
    losses, checks = [], []
    for made in found["models"].values():
        losses += [seeds.format_band(held["nats_per_token"]) for held in made["held_out"].values()]
        checks += [f"{made['judged'][check]['mean']:.3f}" for check in ("sentences", *judging.CHECKS)]
    written = [text for made in found["models"].values() for text in made["written"][:2]]
    return [*counts, *losses, *checks, *written]


def translation(found: Numbers) -> list[str]:
    real = json.loads((EXPERIMENTS / "translation" / "tatoeba.json").read_text(encoding="utf-8"))["numbers"]
    rows = [
        f"| {model} | {x['parameters']:,} | {' | '.join(f'{score:.0f}' for score in np.mean(x['bleu'], axis=0))} |"
        for model, x in real.items()
        if isinstance(x, dict) and "bleu" in x
    ]
    return [*rows, *of_grammar(found)]


def of_grammar(found: Numbers) -> list[str]:
    """The tables of the generated sentences."""
    made = {model: x for model, x in found.items() if isinstance(x, dict) and "cost" in x}
    scores = {model: " | ".join(f"{score:.0f}" for score in np.mean(x["bleu"], axis=0)) for model, x in made.items()}
    costs = {model: f"{x['cost']['time']:.2f} | {x['cost']['mib']:.0f}" for model, x in made.items()}
    shares = {model: np.mean(x["agreement"], axis=0)[-1] for model, x in made.items() if "agreement" in x}
    return [
        *(f"| {model} | {x['parameters']:,} | {costs[model]} | {scores[model]} |" for model, x in made.items()),
        *(f"| {model} | {' | '.join(f'{share:.2f}' for share in by_length)} |" for model, by_length in shares.items()),
    ]


def swap_the_rule(found: Numbers) -> list[str]:
    return [swapped(rule, row) for rule, row in found.items() if isinstance(row, dict)]


def swapped(rule: str, row: Numbers) -> str:
    """A row of the table."""
    band, others = (
        row["difference_band"],
        (f"{row['speed']:.2f}", *(spaced(row[part]) for part in ("entropy", "row_sum"))),
    )
    ends = "\N{EN DASH}" if rule == "base" else f"{band['low']:+.3f} to {band['high']:+.3f}"
    return f"| {rule} | {row['band']['mean']:.3f} | {band['mean']:+.3f} ({ends}) | {' | '.join(others)} |"


def spaced(values: list[float]) -> str:
    """One number for each layer."""
    return " ".join(f"{x:.2f}" for x in values)


def length_extrapolation(found: Numbers) -> list[str]:
    means = [[f"{band['mean']:.3f}" for band in row["band"].values()] for row in found.values()]
    rises = [f"{row['rise_band']['mean']:+.3f}" for row in found.values()]
    return [
        f"| {reading} | {' | '.join(row)} | {rise} (" for reading, row, rise in zip(found, means, rises, strict=True)
    ]


def question_answering(found: Numbers) -> list[str]:
    shares = [seeds.format_band(share) for made in found["answers"].values() for share in made["right"].values()]
    looks = [f"{np.mean(x['most_at_answer']):.3f}" for x in found["looks"].values()]
    return [*shares, *looks, *(f"{chance['guessed']:.3f}" for chance in found["chance"].values())]


def summarisation(found: Numbers) -> list[str]:
    leads = [f"{lead['rouge2']:.1f}" for leads in found["leads"].values() for lead in leads.values()]
    scores = [each for made in found["models"].values() for each in made["scores"].values()]
    exact = [seeds.format_band(each["exact"]) for each in scores]
    written = [text for name, text in found["written"][0].items() if name in found["models"]]
    return [*leads, *exact, *(f"{each['rouge2']['mean']:.1f}" for each in scores), *written]


def rules_side_by_side(found: Numbers) -> list[str]:
    errors = [np.mean(rule["error"]) for task in found["layer"].values() for rule in task.values()]
    return [*(compared(name, found) for name in found["reverse"]), *(f" {error:.2g} |" for error in errors)]


def compared(name: str, found: Numbers) -> str:
    """A row of the table of rules; its third task is that of another experiment."""
    cells = []
    for judged in (found[task][name] for task in ("reverse", "recall")):
        seeds = ", ".join(f"{share:.2f}" for share in judged["sequences"])
        cells.append(f"{np.mean(judged['sequences']):.2f} ({seeds})")
        cells.append(f"{np.mean(judged['aim']):.2f}" if "aim" in judged else "\N{EN DASH}")
    third = json.loads((EXPERIMENTS / "translation" / "results.json").read_text(encoding="utf-8"))
    longest = third["config"]["lengths"].index(third["config"]["words"][1])
    cells.append(f"{np.mean(third['numbers'][name]['bleu'], axis=0)[longest]:.0f}")
    mib = found["memory_mib"].get(name)
    cells.append(f"{found['time_over_dot'][name]:.2f}")
    cells += [f"{mib[how]:.1f}" for how in ("chosen", "reference")] if mib else ["\N{EN DASH}"] * 2
    return f"| {name} | {' | '.join(cells)} |"


def long_range(found: Numbers) -> list[str]:
    few, many = found["recall"].values()
    worst = [f"{np.min(many['dot'][part]):.3f}" for part in ("inside", "beyond")]
    none = many["no attention"]["bands"]["inside"]["mean"]
    each = [f"{share:.2f}" for share in np.mean(few["Transformer"]["inside"], axis=1)]
    mib = [grown(name, made, 1) for name, made in found["mib"].items()]
    milliseconds = [grown(name, made, 1000) for name, made in found["seconds"].items()]
    return [*worst, f"{min(none):.2f} to {max(none):.2f}", *each, *mib, *milliseconds]


def grown(name: str, made: Numbers, unit: float) -> str:
    """A row of the tables of costs."""
    return f"| {name} | {' | '.join(f'{unit * x:.1f}' for x in made['values'])} | {made['growth']:.2f} |"


def eight_steps(found: Numbers) -> list[str]:
    unscaled, scaled = (np.array(mixed["weights"])[1, 1] for mixed in found["mixed"].values())
    output = ", ".join(f"{x:.4f}" for x in found["mixed"]["unscaled"]["output"][1])
    return [
        f"gives {unscaled:.4f} of its weight",
        f"({scaled:.4f})",
        f"[{output}]",
        f"score {found['raw_scores'][1][1]:.0f} ",
    ]


def batched_product(found: Numbers) -> list[str]:
    assert found["distances"]["@"] == found["distances"]["einsum"] == 0, "bit for bit"
    return [f"{found['distances']['torch.bmm']:.1e}"]


def shakespeare_char(found: Numbers) -> list[str]:
    losses = {name: made["validation_loss"] for name, made in found["positions"].items()}
    rows = [" | ".join(f"{loss:.3f}" for loss in by_seed) for by_seed in losses.values()]
    return [*rows, f"take {np.mean(losses['learned']) - np.mean(losses['rotary']):.2f} off"]
