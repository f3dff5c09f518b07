"""The figure: all matrices of the eight steps."""

from __future__ import annotations

from matplotlib.figure import Figure

from experiments import figures
from experiments.eight_steps.experiment import Config, Steps
from experiments.figures import Panel


def draw(config: Config, steps: Steps) -> dict[str, Figure]:
    """Draw steps 1 and 2, then 3 and 4, then 5 to 8 for each score."""
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
    return {"steps": figures.panels(grid, "Self-attention in eight steps")}
