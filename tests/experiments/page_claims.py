"""Texts that the page of each experiment must contain, made from its results: one function for each experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments import seeds
from experiments.generation.checks import CHECKS

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
Numbers = dict[str, Any]


def soft_lookup(numbers: Numbers) -> list[str]:
    lookups = (numbers["without_query"], numbers["living_things"], numbers["shop"])
    return [f"{weight:.2f}" for weights in lookups for weight in weights.values() if weight > 0.04]


def self_attention_zh(numbers: Numbers) -> list[str]:
    ratios = [f"a factor of {round(min(numbers['one head']['loss_ratio']))}"]
    ends = [f"{weight:.2f}" for (weight,) in numbers["one head"]["weight_after"]]
    first_seed = [f"{numbers['one head'][when][0][0]:.2f}" for when in ("weight_before", "weight_after")]
    return [*ratios, ", ".join(ends), *first_seed, f"{numbers['no parameters']['loss']:.1e}"]


def cat_sat(numbers: Numbers) -> list[str]:
    softmax = numbers["softmax"]
    weights = np.mean(softmax["weights_masked"], 1)
    table = ["| " + " | ".join(f"{weight:.2f}" for weight in row) + " | 1 |" for row in weights]
    right = [f"{share:.2f}" for share in [*np.mean(softmax["right"], 0), np.mean(numbers["alone"]["right"])]]
    sums = ", ".join(f"{row.sum():.2f}" for row in np.mean(numbers["sigmoid"]["weights_masked"], 1))
    lengths = [f"{np.linalg.norm(softmax[which][0]):.2f}" for which in ("mixed_masked", "mixed_read")]
    read = [", ".join(f"{row[i]:.2f}" for row in np.mean(softmax["weights_read"], 1)) for i in (1, 5)]
    return [*table, "| " + " | ".join(right) + " |", sums, *lengths, *read]


def digits(numbers: Numbers) -> list[str]:
    table = {"commonest": numbers["commonest"], "blind": np.mean(numbers["blind"], 0)}
    table |= {key: np.mean(numbers["apart"][key], 0) for key in ("right", "written", "other_image")}
    table["together"] = np.mean(numbers["together"]["right"], 0)
    ways = numbers["apart"]["hidden"].values()
    hidden = [np.mean(way, 0)[:, 2, 1] for way in ways]  # 4 patches, the digit word
    return [" | ".join(f"{share:.2f}" for share in row) for row in (*table.values(), *hidden)]


def inside_a_transformer(numbers: Numbers) -> list[str]:
    ratios = [np.median([row[0] / row[-1] for row in norms]) for norms in numbers["E4"].values()]
    trained = [result for by_seed in numbers["E6"]["trained"].values() for result in by_seed]
    endings = [f"{result['right']} of {result['held_out']}" for result in trained]
    return [*(f"{ratio:.1e}" if ratio < 0.1 else f"{ratio:.2f}" for ratio in ratios), *endings]


def generation(numbers: Numbers) -> list[str]:
    counts = [f"{x['nats_per_token']:.3f}" for both in numbers["counts"].values() for x in both.values()]
    losses, checks, texts = [], [], []
    for model in numbers["models"].values():
        losses += [seeds.format_band(held_out["nats_per_token"]) for held_out in model["held_out"].values()]
        checks += [f"{model['checks'][check]['mean']:.3f}" for check in ("sentences", *CHECKS)]
        texts += model["texts"][:2]
    return [*counts, *losses, *checks, *texts]


def translation(numbers: Numbers) -> list[str]:
    real = json.loads((EXPERIMENTS / "translation" / "tatoeba.json").read_text(encoding="utf-8"))["numbers"]
    rows = [
        f"| {model} | {x['parameters']:,} | {' | '.join(f'{score:.0f}' for score in np.mean(x['bleu'], axis=0))} |"
        for model, x in real.items()
        if isinstance(x, dict) and "bleu" in x
    ]
    return [*rows, *generated_sentences(numbers)]


def generated_sentences(numbers: Numbers) -> list[str]:
    """Rows of the tables about generated sentences."""
    models = {name: x for name, x in numbers.items() if isinstance(x, dict) and "cost" in x}
    scores = {name: " | ".join(f"{score:.0f}" for score in np.mean(x["bleu"], axis=0)) for name, x in models.items()}
    costs = {name: f"{x['cost']['time']:.2f} | {x['cost']['mib']:.0f}" for name, x in models.items()}
    shares = {name: np.mean(x["agreement"], axis=0)[-1] for name, x in models.items() if "agreement" in x}
    return [
        *(f"| {name} | {x['parameters']:,} | {costs[name]} | {scores[name]} |" for name, x in models.items()),
        *(f"| {name} | {' | '.join(f'{share:.2f}' for share in by_length)} |" for name, by_length in shares.items()),
    ]


def swap_the_rule(numbers: Numbers) -> list[str]:
    return [variant_row(name, variant) for name, variant in numbers.items() if isinstance(variant, dict)]


def variant_row(name: str, variant: Numbers) -> str:
    """Row of the table of variants."""
    loss, difference = variant["band"]["mean"], variant["difference_band"]
    ends = "\N{EN DASH}" if name == "base" else f"{difference['low']:+.3f} to {difference['high']:+.3f}"
    layers = [" ".join(f"{x:.2f}" for x in variant[key]) for key in ("entropy", "row_sum")]
    return (
        f"| {name} | {loss:.3f} | {difference['mean']:+.3f} ({ends}) | {variant['speed']:.2f} | {' | '.join(layers)} |"
    )


def length_extrapolation(numbers: Numbers) -> list[str]:
    means = [[f"{band['mean']:.3f}" for band in evaluation["band"].values()] for evaluation in numbers.values()]
    rises = [f"{evaluation['rise_band']['mean']:+.3f}" for evaluation in numbers.values()]
    return [f"| {name} | {' | '.join(row)} | {rise} (" for name, row, rise in zip(numbers, means, rises, strict=True)]


def question_answering(numbers: Numbers) -> list[str]:
    shares = [seeds.format_band(share) for model in numbers["answers"].values() for share in model["right"].values()]
    maps = [f"{np.mean(x['largest_at_answer']):.3f}" for x in numbers["maps"].values()]
    return [*shares, *maps, *(f"{chance['guessed']:.3f}" for chance in numbers["chance"].values())]


def summarisation(numbers: Numbers) -> list[str]:
    leads = [f"{lead['rouge2']:.1f}" for leads in numbers["leads"].values() for lead in leads.values()]
    scores = [by_set for model in numbers["models"].values() for by_set in model["scores"].values()]
    exact = [seeds.format_band(by_set["exact"]) for by_set in scores]
    summaries = [text for name, text in numbers["summaries"][0].items() if name in numbers["models"]]
    return [*leads, *exact, *(f"{by_set['rouge2']['mean']:.1f}" for by_set in scores), *summaries]


def rules_side_by_side(numbers: Numbers) -> list[str]:
    errors = [np.mean(rule["error"]) for task in numbers["layer"].values() for rule in task.values()]
    return [*(rule_row(name, numbers) for name in numbers["reverse"]), *(f" {error:.2g} |" for error in errors)]


def rule_row(name: str, numbers: Numbers) -> str:
    """Row of the table of rules; its third task is the experiment `translation`."""
    cells = []
    for result in (numbers[task][name] for task in ("reverse", "recall")):
        by_seed = ", ".join(f"{share:.2f}" for share in result["sequences"])
        cells.append(f"{np.mean(result['sequences']):.2f} ({by_seed})")
        cells.append(f"{np.mean(result['aim']):.2f}" if "aim" in result else "\N{EN DASH}")
    translation = json.loads((EXPERIMENTS / "translation" / "results.json").read_text(encoding="utf-8"))
    longest = translation["config"]["lengths"].index(translation["config"]["words"][1])
    cells.append(f"{np.mean(translation['numbers'][name]['bleu'], axis=0)[longest]:.0f}")
    mib = numbers["memory_mib"].get(name)
    cells.append(f"{numbers['time_over_dot'][name]:.2f}")
    cells += [f"{mib[how]:.1f}" for how in ("chosen", "reference")] if mib else ["\N{EN DASH}"] * 2
    return f"| {name} | {' | '.join(cells)} |"


def long_range(numbers: Numbers) -> list[str]:
    few, many = numbers["recall"].values()
    worst = [f"{np.min(many['dot'][length]):.3f}" for length in ("inside", "beyond")]
    without = many["no attention"]["bands"]["inside"]["mean"]
    transformer = [f"{share:.2f}" for share in np.mean(few["Transformer"]["inside"], axis=1)]
    mib = [cost_row(name, layer, 1) for name, layer in numbers["mib"].items()]
    milliseconds = [cost_row(name, layer, 1000) for name, layer in numbers["seconds"].items()]
    return [*worst, f"{min(without):.2f} to {max(without):.2f}", *transformer, *mib, *milliseconds]


def cost_row(name: str, layer: Numbers, unit: float) -> str:
    """Row of the tables of costs."""
    return f"| {name} | {' | '.join(f'{unit * x:.1f}' for x in layer['values'])} | {layer['growth']:.2f} |"


def eight_steps(numbers: Numbers) -> list[str]:
    unscaled, scaled = (np.array(mixed["weights"])[1, 1] for mixed in numbers["mixed"].values())
    output = ", ".join(f"{x:.4f}" for x in numbers["mixed"]["unscaled"]["output"][1])
    return [
        f"gives {unscaled:.4f} of its weight",
        f"({scaled:.4f})",
        f"[{output}]",
        f"score {numbers['raw_scores'][1][1]:.0f} ",
    ]


def batched_product(numbers: Numbers) -> list[str]:
    assert numbers["distances"]["@"] == numbers["distances"]["einsum"] == 0, "bit for bit"
    return [f"{numbers['distances']['torch.bmm']:.1e}"]


def shakespeare_char(numbers: Numbers) -> list[str]:
    losses = {name: scheme["validation_loss"] for name, scheme in numbers["positions"].items()}
    rows = [" | ".join(f"{loss:.3f}" for loss in by_seed) for by_seed in losses.values()]
    return [*rows, f"lower it by {np.mean(losses['learned']) - np.mean(losses['rotary']):.2f}"]
