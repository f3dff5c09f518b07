"""Command of the experiment: train, print where 写 looks, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import command
from experiments.self_attention_zh.drawing import draw
from experiments.self_attention_zh.experiment import (
    KEY_WORD,
    QUERY_WORD,
    SMALL,
    Config,
    Results,
    run,
    weight_between_words,
)

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Train self-attention to reproduce two Chinese sentences.

    Args:
        config: sentences, sizes, training.
        small: a short training of two seeds, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Train, print, write."""
    config = command.chosen_config(options, SMALL)
    results = run(config)
    print_report(config, results)
    numbers = result_numbers(config, results)
    return command.save(options, HERE, config, config.seeds, results, numbers, lambda: draw(config, results))


def result_numbers(config: Config, results: Results) -> dict[str, Any]:
    """Losses, and the weight from 写 to 代码, by layer and seed."""
    free_weight = weight_between_words(config, results.free_weights[:, None])
    numbers: dict[str, Any] = {"no parameters": {"loss": results.free_loss, "weight": free_weight}}
    for name, trained in results.trained.items():
        numbers[name] = {
            "first_loss": trained.losses[:, 0],
            "last_loss": trained.losses[:, -1],
            "loss_ratio": trained.loss_ratios,
            "weight_before": weight_between_words(config, trained.before),
            "weight_after": weight_between_words(config, trained.after),
            "most_looked_at_after": trained.after[:, 0].argmax(-1),
            "curve": trained.losses[:, :: max(config.steps // 30, 1)],
        }
    return numbers


def print_report(config: Config, results: Results) -> None:
    """Print one line for each layer, seed and head."""
    free_weight = weight_between_words(config, results.free_weights[:, None])
    looks = f"{QUERY_WORD} attends to {KEY_WORD}"
    print(f"no parameters: loss {results.free_loss:.2e}, {looks} by {free_weight[0]:.2e}")
    for name, trained in results.trained.items():
        before, after = (weight_between_words(config, maps) for maps in (trained.before, trained.after))
        for i, seed in enumerate(config.seeds):
            first, last, ratio = trained.losses[i, 0], trained.losses[i, -1], trained.loss_ratios[i]
            weights = ", ".join(f"{a:.3f} -> {b:.3f}" for a, b in zip(before[i], after[i], strict=True))
            print(f"{name}, seed {seed}: loss {first:.4f} -> {last:.2e} (divided by {ratio:,.0f}); {looks}: {weights}")
