"""The figure: the first and the last product of the batch."""

from __future__ import annotations

from matplotlib.figure import Figure

from experiments import figures
from experiments.batched_product.experiment import Products
from experiments.figures import Panel


def draw(results: Products) -> dict[str, Figure]:
    """Draw the figure, by the name of its file."""
    product, last = results.ways["vmap of @"], len(results.left) - 1
    grid = [
        [
            Panel(f"left[{i}]", results.left[i], 2),
            Panel(f"right[{i}]", results.right[i], 2),
            Panel(f"left[{i}] @ right[{i}]", product[i], 2),
        ]
        for i in (0, last)
    ]
    shapes = " × ".join(str(list(x.shape)) for x in (results.left, results.right))  # noqa: RUF001
    title = f"{shapes} → {list(product.shape)}: {last + 1} products, two of them shown"
    return {"products": figures.panels(grid, title)}
