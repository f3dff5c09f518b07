"""Command of the experiment: print the products, write results.json and a figure of two of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments import command
from experiments.batched_product.drawing import draw
from experiments.batched_product.experiment import Config, Products, run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Multiply a batch of matrices in four ways.

    Args:
        config: sizes and seed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Multiply, print, write."""
    config = options.config
    results = run(config)
    print_report(results)
    numbers = {
        "shape": results.ways["vmap of @"].shape,
        "distances": results.distances(),
        "products": results.ways["einsum"],
    }
    return command.save(options, HERE, config, (config.seed,), results, numbers, lambda: draw(results))


def print_report(results: Products) -> None:
    """Print shapes and distances."""
    a, b = (list(x.shape) for x in (results.left, results.right))
    for name, product in results.ways.items():
        print(f"{a} x {b} -> {list(product.shape)}  by {name}")
    print("largest difference from vmap of @:")
    for name, distance in results.distances().items():
        print(f"    {name:<20} {distance:.2e}")
