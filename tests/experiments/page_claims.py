"""Texts that the page of each experiment must contain, made from its results: one function for each experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments import seeds
from experiments.generation.checks import CHECKS
from jax_attention import training

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
Numbers = dict[str, Any]


def difference(values: Any, baseline: Any, digits: int = 3, sign: str = "+") -> str:
    """Difference seed by seed with its interval, as the pages write it; a number as baseline is the same for each seed.

    Sentences that call one variant better or worse than another have this next to them.
    """
    values = np.asarray(values)
    interval = training.paired_difference(values, np.broadcast_to(baseline, values.shape))
    return seeds.format_band({"n": len(values), **interval._asdict()}, digits, sign)


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
    weights_by_seed = np.mean(softmax["weights_masked"], 1)
    table = ["| " + " | ".join(f"{weight:.2f}" for weight in row) + " | 1 |" for row in weights_by_seed]
    right = [f"{share:.2f}" for share in [*np.mean(softmax["right"], 0), np.mean(numbers["alone"]["right"])]]
    sums = ", ".join(f"{row.sum():.2f}" for row in np.mean(numbers["sigmoid"]["weights_masked"], 1))
    lengths = [f"{np.linalg.norm(softmax[which][0]):.2f}" for which in ("mixed_masked", "mixed_read")]
    read = [", ".join(f"{row[i]:.2f}" for row in np.mean(softmax["weights_read"], 1)) for i in (1, 5)]
    more_weight = difference(weights_by_seed[:, 5], weights_by_seed[:, 1])
    more_left = difference(*np.array(softmax["right"]).T[[2, 5]])  # without cat, without mat
    return [*table, "| " + " | ".join(right) + " |", sums, *lengths, *read, more_weight, more_left]


def digits(numbers: Numbers) -> list[str]:
    table = {"commonest": numbers["commonest"], "blind": np.mean(numbers["blind"], 0)}
    table |= {key: np.mean(numbers["apart"][key], 0) for key in ("right", "written", "other_image")}
    table["together"] = np.mean(numbers["together"]["right"], 0)
    ways = numbers["apart"]["hidden"].values()
    hidden = [np.mean(way, 0)[:, 2, 1] for way in ways]  # 4 patches, the digit word
    rows = [" | ".join(f"{share:.2f}" for share in row) for row in (*table.values(), *hidden)]
    return [*rows, *digit_differences(numbers)]


def digit_differences(numbers: Numbers) -> list[str]:
    """Between the encoders, between kinds of patches that are hidden, and of weights from uniform ones."""
    apart, together = numbers["apart"], numbers["together"]
    ink, digit, top, bottom = (numbers["kinds"].index(kind) for kind in ("ink", "digit", "top", "bottom"))
    right = [np.array(encoder["right"]) for encoder in (together, apart)]
    texts = [difference(*(shares[:, kind] for shares in right)) for kind in (digit, bottom)]
    one = [np.array(encoder["hidden"]["out of sight"])[:, 0, 0, digit] for encoder in (together, apart)]
    texts.append(difference(*one))
    for encoder in (apart, together):
        sight, paper = (np.array(encoder["hidden"][way])[:, :, 2] for way in ("out of sight", "white paper"))
        texts.append(difference(sight[:, 2, digit], sight[:, 0, digit], sign="-"))
        texts.append(difference(paper[:, 0, digit], paper[:, 2, digit]))
        texts.append(difference(sight[:, 2, ink], sight[:, 1, ink]))
        edges = [
            [row[edge][kind] for row in encoder["edge_weight"]] for edge, kind in (("top", top), ("bottom", bottom))
        ]
        texts += [difference(weights, 0.25) for weights in edges]
    return texts


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
    itself, attention = (model["held_out"] for model in numbers["models"].values())
    lower = [
        difference(itself[which]["nats_per_token"]["by_seed"], attention[which]["nats_per_token"]["by_seed"], sign="-")
        for which in itself
    ]
    return [*counts, *losses, *checks, *texts, *lower]


def translation(numbers: Numbers) -> list[str]:
    real = json.loads((EXPERIMENTS / "translation" / "tatoeba.json").read_text(encoding="utf-8"))["numbers"]
    rows = [
        f"| {model} | {x['parameters']:,} | {' | '.join(f'{score:.0f}' for score in np.mean(x['bleu'], axis=0))} |"
        for model, x in real.items()
        if isinstance(x, dict) and "bleu" in x
    ]
    none, dot, additive = (np.array(real[name]["bleu"]) for name in ("no attention", "dot", "additive"))
    three = [difference(model[:, 0], none[:, 0], 1) for model in (dot, additive)]
    four = [difference(model[:, 1], none[:, 1], 1, "-") for model in (dot, additive)]
    return [*rows, *three, *four, *generated_sentences(numbers), *translation_differences(numbers)]


def translation_differences(numbers: Numbers) -> list[str]:
    """Differences in BLEU of generated sentences."""
    bleu = {name: np.array(x["bleu"]) for name, x in numbers.items() if isinstance(x, dict) and "bleu" in x}
    words = list(map(int, numbers["test_sentences"]))
    compare = lambda name, other, length, sign="+": difference(  # noqa: E731
        *(bleu[model][:, words.index(length)] for model in (name, other)), 1, sign
    )
    return [
        *(compare("dot", "no attention", length, "-") for length in (12, 20)),
        compare("dot", "location", 14, "-"),
        *(compare("Transformer", "dot", length) for length in (12, 14, 16, 20)),
        *(compare("concat", "no attention", length) for length in (10, 12)),
        compare("cosine / sqrt(d)", "no attention", 12),
        compare("cosine, scale 10", "dot", 20),
        *(compare("scaled dot", "dot", length) for length in (12, 20)),
        compare("additive, plain sum", "additive", 20),
    ]


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
    losses = {name: variant["held_out_loss"] for name, variant in numbers.items() if isinstance(variant, dict)}
    return [
        *(variant_row(name, numbers[name]) for name in losses),
        difference(losses["window 1"], losses["uniform"], sign="-"),
        difference(losses["learned"], losses["none"], sign="-"),
        difference(losses["sinusoidal"], losses["window 1"], sign="-"),
    ]


def variant_row(name: str, variant: Numbers) -> str:
    """Row of the table of variants."""
    loss = variant["band"]["mean"]
    minus_base = "\N{EN DASH}" if name == "base" else seeds.format_band(variant["difference_band"], sign="+")
    layers = [" ".join(f"{x:.2f}" for x in variant[key]) for key in ("entropy", "row_sum")]
    return f"| {name} | {loss:.3f} | {minus_base} | {variant['speed']:.2f} | {' | '.join(layers)} |"


def length_extrapolation(numbers: Numbers) -> list[str]:
    means = [[f"{band['mean']:.3f}" for band in evaluation["band"].values()] for evaluation in numbers.values()]
    rises = [seeds.format_band(evaluation["rise_band"], sign="+") for evaluation in numbers.values()]
    table = [f"| {name} | {' | '.join(row)} | {rise} |" for name, row, rise in zip(numbers, means, rises, strict=True)]
    return [*table, *length_differences(numbers)]


def length_differences(numbers: Numbers) -> list[str]:
    """Differences in nats per byte within a range of positions."""
    within, next_, third, last = next(iter(numbers.values()))["loss"]
    compare = lambda name, other, where, sign="-": difference(  # noqa: E731
        numbers[name]["loss"][where], numbers[other]["loss"][where], sign=sign
    )
    first_doubling = difference(*(numbers["sinusoidal"]["loss"][where] for where in (next_, within)), sign="-")
    return [
        first_doubling,
        *(compare("alibi", "rotary", where) for where in (within, next_)),
        compare("rotary", "sinusoidal", last),
        *(compare(name, "rotary", within, "+") for name in ("none", "t5", "rotary, trained long")),
        compare("alibi", "rotary, window", last),
        compare("sinusoidal, window", "sinusoidal", third),
        *(compare(f"{name}, window", name, last) for name in ("sinusoidal", "none")),
        *(compare(name, "rotary", within) for name in ("rotary, yarn", "rotary, dynamic")),
        compare("rotary, yarn", "rotary", last),
        *(compare("rotary", "rotary, dynamic", where) for where in (third, last)),
    ]


def question_answering(numbers: Numbers) -> list[str]:
    shares = [seeds.format_band(share) for model in numbers["answers"].values() for share in model["right"].values()]
    maps = [f"{np.mean(x['largest_at_answer']):.3f}" for x in numbers["maps"].values()]
    additive, *others = (numbers["answers"][name]["right"] for name in ("additive", "no attention", "Transformer"))
    better = [
        difference(additive[which]["by_seed"], other[which]["by_seed"], sign="-")
        for other in others
        for which in ("new passages", "new pairs")
    ]
    return [*shares, *better, *maps, *(f"{chance['guessed']:.3f}" for chance in numbers["chance"].values())]


def summarisation(numbers: Numbers) -> list[str]:
    leads = [f"{lead['rouge2']:.1f}" for leads in numbers["leads"].values() for lead in leads.values()]
    scores = [by_set for model in numbers["models"].values() for by_set in model["scores"].values()]
    exact = [seeds.format_band(by_set["exact"]) for by_set in scores]
    summaries = [text for name, text in numbers["summaries"][0].items() if name in numbers["models"]]
    none, additive, transformer = (
        {key: {which: band["by_seed"] for which, band in by_set.items()} for key, by_set in model["scores"].items()}
        for model in numbers["models"].values()
    )
    new, pairs = additive
    differences = [
        *(difference(model[new]["rouge2"], none[new]["rouge2"], 1, "-") for model in (additive, transformer)),
        difference(additive[new]["rouge2"], transformer[new]["rouge2"], 1),
        difference(additive[new]["exact"], transformer[new]["exact"]),
        difference(additive[pairs]["exact"], additive[new]["exact"]),
    ]
    return [*leads, *exact, *(f"{by_set['rouge2']['mean']:.1f}" for by_set in scores), *summaries, *differences]


def rules_side_by_side(numbers: Numbers) -> list[str]:
    errors = [np.mean(rule["error"]) for task in numbers["layer"].values() for rule in task.values()]
    rows = [rule_row(name, numbers) for name in numbers["reverse"]]
    return [*rows, *(f" {error:.2g} |" for error in errors), *rule_differences(numbers)]


def rule_differences(numbers: Numbers) -> list[str]:
    """Differences in rows right, and in BLEU at 12 words."""
    compare = lambda task, name, other: difference(*(numbers[task][rule]["sequences"] for rule in (name, other)))  # noqa: E731
    bleu = json.loads((EXPERIMENTS / "translation" / "results.json").read_text(encoding="utf-8"))["numbers"]
    at_12 = {
        name: np.array(bleu[name]["bleu"])[:, list(bleu["test_sentences"]).index("12")] for name in numbers["reverse"]
    }
    pairs = (("concat", "no attention"), ("cosine / sqrt(d)", "no attention"), ("scaled dot", "dot"))
    none, plain = "no attention", "additive, plain sum"
    recall = (("location", none), (plain, "additive"), ("cosine / sqrt(d)", none), ("scaled dot", "dot"), ("dot", none))
    return [
        *(compare("reverse", *pair) for pair in pairs),
        *(compare("recall", *pair) for pair in recall),
        *(difference(at_12[name], at_12[other], 1) for name, other in pairs),
    ]


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
    ends = np.array(few["no attention"]["inside"])
    mean = lambda setting, name, length: np.mean(setting[name][length], axis=1)  # noqa: E731
    differences = [
        difference(mean(many, "Transformer", "inside"), mean(many, "no attention", "inside")),
        difference(ends[:, [0, -1]].mean(1), ends[:, 1:-1].mean(1)),
        difference(mean(few, "Transformer", "beyond"), mean(few, "no attention", "beyond")),
    ]
    return [*differences, *worst, f"{min(without):.2f} to {max(without):.2f}", *transformer, *mib, *milliseconds]


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
    rows = [
        " | ".join([*(f"{loss:.3f}" for loss in losses[name]), seeds.format_band(scheme["band"])])
        for name, scheme in numbers["positions"].items()
    ]
    lower = difference(losses["learned"], losses["rotary"], sign="-")
    return [*rows, lower, f"lower it by {np.mean(losses['learned']) - np.mean(losses['rotary']):.2f}"]
