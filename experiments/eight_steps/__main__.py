"""Print the eight steps; write results.json and one figure of all matrices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import tyro
from matplotlib.figure import Figure

from experiments import figures, record
from experiments.eight_steps import Config, Steps, run
from experiments.figures import Panel

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Walk through self-attention in eight steps.

    Args:
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    out: Path | None = None


def table(rows: jax.Array, digits: int, labels: str, indent: str = "    ") -> str:
    """One line for each row, columns aligned: `label  [number number …]`."""
    cells = [[f"{x:.{digits}f}" for x in row] for row in rows.tolist()]
    width = max(len(cell) for row in cells for cell in row)
    lines = [" ".join(cell.rjust(width) for cell in row) for row in cells]
    return "\n".join(f"{indent}{labels} {i}  [{line}]" for i, line in enumerate(lines, 1))


def show(config: Config, steps: Steps) -> None:
    """Print the eight steps."""
    print("1. Inputs: three words of four features")
    print(table(steps.inputs, 0, "word"))
    print("2. Weights: three matrices [4, 3], learned in a real model, here given")
    for name, rows in (("W_key", config.key), ("W_query", config.query), ("W_value", config.value)):
        print(f"    {name:<8} {[list(row) for row in rows]}")
    print("3. Keys, queries and values: inputs @ weights")
    for name, rows in (("key  ", steps.key), ("query", steps.query), ("value", steps.value)):
        print(table(rows, 0, name))
    print("4. Raw scores: queries @ keys^T, one row per query")
    print(table(steps.raw_scores, 0, "query"))
    for name, mixed in steps.mixed.items():
        print(f"\n{name[0].upper()}{name[1:]}")
        print("5. Softmax of each row: weights that sum to 1")
        print(table(mixed.weights, 4, "query"))
        print("6. Weighted values: each value times its weight; here for query 1")
        print(table(mixed.weighted_values[0], 4, "value"))
        print("7. Their sum is the output of query 1")
        print(table(mixed.output[:1], 4, "output"))
        print("8. The same for every query")
        print(table(mixed.output, 4, "output"))


def draw(config: Config, steps: Steps) -> Figure:
    """Steps 1 and 2, then 3 and 4, then 5 to 8 for each rule."""
    grid = [
        [
            Panel("1. inputs", steps.inputs, 0, "word"),
            Panel("2. W_key", config.key),
            Panel("2. W_query", config.query),
            Panel("2. W_value", config.value),
        ],
        [
            Panel("3. keys", steps.key, 0, "key"),
            Panel("3. queries", steps.query, 0, "query"),
            Panel("3. values", steps.value, 0, "value"),
            Panel("4. raw scores, queries @ keys$^T$", steps.raw_scores, 0, "query"),
        ],
    ]
    for name, mixed in steps.mixed.items():
        grid.append(
            [
                Panel(f"5. weights, {name}", mixed.weights, 4, "query"),
                Panel("6. weighted values of query 1", mixed.weighted_values[0], 4, "value"),
                Panel("7. their sum", mixed.output[:1], 4, "output"),
                Panel("8. outputs of all queries", mixed.output, 4, "output"),
            ]
        )
    return figures.panels(grid, "Self-attention in eight steps")


def main(given: Options) -> None:
    """Compute, print, write."""
    config = Config()
    steps = run(config)
    show(config, steps)
    numbers = steps._asdict() | {"mixed": {name: mixed._asdict() for name, mixed in steps.mixed.items()}}
    record.keep(given, HERE, config, (), numbers, lambda: {"steps": draw(config, steps)})


if __name__ == "__main__":
    main(tyro.cli(Options))
