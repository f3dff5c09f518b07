"""Print the products; write results.json and a figure of one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from experiments import figures, record
from experiments.batched_product import Config, Products, run
from experiments.figures import Panel

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Multiply a batch of matrices in four ways.

    Args:
        config: sizes and seed.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    out: Path | None = None


def show(found: Products) -> None:
    """Print shapes and distances."""
    a, b = (list(x.shape) for x in (found.left, found.right))
    for name, product in found.ways.items():
        print(f"{a} x {b} -> {list(product.shape)}  by {name}")
    print("largest difference from vmap of @:")
    for name, far in found.distances().items():
        print(f"    {name:<20} {far:.2e}")


def draw(found: Products) -> Figure:
    """The first and the last product of the batch."""
    product, last = found.ways["vmap of @"], len(found.left) - 1
    grid = [
        [
            Panel(f"left[{i}]", found.left[i], 2),
            Panel(f"right[{i}]", found.right[i], 2),
            Panel(f"left[{i}] @ right[{i}]", product[i], 2),
        ]
        for i in (0, last)
    ]
    shapes = " × ".join(str(list(x.shape)) for x in (found.left, found.right))  # noqa: RUF001
    return figures.panels(grid, f"{shapes} → {list(product.shape)}: {last + 1} products, two of them shown")


def main(given: Options) -> None:
    """Multiply, print, write."""
    found = run(given.config)
    show(found)
    numbers = {"shape": found.ways["vmap of @"].shape, "distances": found.distances(), "products": found.ways["einsum"]}
    record.keep(given, HERE, given.config, (given.config.seed,), numbers, lambda: {"products": draw(found)})


if __name__ == "__main__":
    main(tyro.cli(Options))
