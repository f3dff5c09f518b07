"""Self-attention in eight steps, with numbers small enough to check by hand.

Question: what exactly happens between three input vectors and three outputs of self-attention?
Command:  python -m experiments.eight_steps
Time:     about 2 seconds on a CPU, without training.
Result:   keys, queries, values and raw scores are whole numbers; word 2 gives 0.9820 of its weight to itself, because
          its score 16 is 4 above the next; its output is [2.0000, 7.9640, 0.0540], close to its own value [2, 8, 0].
          Dividing the scores by sqrt(3) flattens the weights (0.9088 instead of 0.9820) and mixes more.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_attention import attend, attention_weights, scores

INPUTS = [[1, 0, 1, 0], [0, 2, 0, 2], [1, 1, 1, 1]]
KEY_WEIGHT = [[0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 1, 0]]
QUERY_WEIGHT = [[1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 1]]
VALUE_WEIGHT = [[0, 2, 0], [0, 3, 0], [1, 0, 3], [1, 1, 0]]
RULES = {"unscaled": scores.dot(), "scaled by 1/sqrt(3)": scores.scaled_dot()}


class Mixed(NamedTuple):
    """What one score rule makes of the keys, queries and values."""

    weights: jax.Array
    weighted_values: jax.Array
    output: jax.Array


class Steps(NamedTuple):
    """All numbers of the walk-through; `mixed` has one entry for each rule of `RULES`."""

    inputs: jax.Array
    key: jax.Array
    query: jax.Array
    value: jax.Array
    raw_scores: jax.Array
    mixed: dict[str, Mixed]


def run() -> Steps:
    """Compute every step."""
    x, w_key, w_query, w_value = (
        jnp.asarray(rows, jnp.float32) for rows in (INPUTS, KEY_WEIGHT, QUERY_WEIGHT, VALUE_WEIGHT)
    )
    key, query, value = x @ w_key, x @ w_query, x @ w_value
    mixed = {}
    for name, rule in RULES.items():
        weights = attention_weights(query, key, value, score=rule, precision="highest")
        weighted = weights[:, :, None] * value[None, :, :]
        mixed[name] = Mixed(weights, weighted, attend(query, key, value, score=rule, precision="highest"))
    return Steps(x, key, query, value, scores.dot()(query, key), mixed)


def table(rows: jax.Array, digits: int, labels: str, indent: str = "    ") -> str:
    """One line for each row, columns aligned: `label  [number number …]`."""
    cells = [[f"{x:.{digits}f}" for x in row] for row in rows.tolist()]
    width = max(len(cell) for row in cells for cell in row)
    lines = [" ".join(cell.rjust(width) for cell in row) for row in cells]
    return "\n".join(f"{indent}{labels} {i}  [{line}]" for i, line in enumerate(lines, 1))


def main() -> None:
    """Print the eight steps."""
    steps = run()
    print("1. Inputs: three words of four features")
    print(table(steps.inputs, 0, "word"))
    print("2. Weights: three matrices [4, 3], learned in a real model, here given")
    for name, rows in (("W_key", KEY_WEIGHT), ("W_query", QUERY_WEIGHT), ("W_value", VALUE_WEIGHT)):
        print(f"    {name:<8} {rows}")
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


if __name__ == "__main__":
    main()
