"""Command of the experiment: print the eight steps, write results.json and the figure of all matrices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax

from experiments import command
from experiments.eight_steps.drawing import draw
from experiments.eight_steps.experiment import Config, Steps, run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Walk through self-attention in eight steps.

    Args:
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Compute, print, write."""
    config = Config()
    steps = run(config)
    print_report(config, steps)
    numbers = steps._asdict() | {"mixed": {name: mixed._asdict() for name, mixed in steps.mixed.items()}}
    return command.save(options, HERE, config, (), steps, numbers, lambda: draw(config, steps))


def print_report(config: Config, steps: Steps) -> None:
    """Print the eight steps."""
    print("1. Inputs: three words of four features")
    print(_table(steps.inputs, 0, "word"))
    print("2. Weights: three matrices [4, 3], which a real model learns; here they are constants")
    for name, rows in (("W_key", config.key), ("W_query", config.query), ("W_value", config.value)):
        print(f"    {name:<8} {[list(row) for row in rows]}")
    print("3. Keys, queries and values: inputs @ weights")
    for name, rows in (("key  ", steps.key), ("query", steps.query), ("value", steps.value)):
        print(_table(rows, 0, name))
    print("4. Raw scores: queries @ keys^T, one row per query")
    print(_table(steps.raw_scores, 0, "query"))
    for name, mixed in steps.mixed.items():
        print(f"\n{name[0].upper()}{name[1:]}")
        print("5. Softmax of each row: weights that sum to 1")
        print(_table(mixed.weights, 4, "query"))
        print("6. Weighted values: each value times its weight; here for query 1")
        print(_table(mixed.weighted_values[0], 4, "value"))
        print("7. Their sum is the output of query 1")
        print(_table(mixed.output[:1], 4, "output"))
        print("8. The same for every query")
        print(_table(mixed.output, 4, "output"))


def _table(rows: jax.Array, digits: int, labels: str, indent: str = "    ") -> str:
    """One line for each row, columns aligned: `label  [number number …]`."""
    cells = [[f"{x:.{digits}f}" for x in row] for row in rows.tolist()]
    width = max(len(cell) for row in cells for cell in row)
    lines = [" ".join(cell.rjust(width) for cell in row) for row in cells]
    return "\n".join(f"{indent}{labels} {i}  [{line}]" for i, line in enumerate(lines, 1))
