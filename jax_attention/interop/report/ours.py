"""Our side: a model of one layer, changed or not, run at single points, and the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import models
from jax_attention.core.tree_paths import arrays_by_path, replace_arrays
from jax_attention.interop.difference import Difference
from jax_attention.interop.report.halves import Half
from jax_attention.interop.report.points import POINTS, Beside, run_points
from jax_attention.interop.report.rounding import compared, longest_sum, nudged
from jax_attention.models import Capture, LMConfig, TransformerLM
from jax_attention.models.blocks import restack


def alone(model: TransformerLM, layer: int) -> TransformerLM:
    """A model of this layer only, with the same embedding, last norm and head; the model is not scanned."""
    config = model.config
    copy = jax.tree.map(lambda x: x, model)
    copy.config = LMConfig(**_fields(config) | {"depth": 1, "windows": (config.window(layer),)})
    copy.blocks = restack([model.blocks.rest[layer]], copy.config)
    return copy


def _fields(config: LMConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in LMConfig.__dataclass_fields__}


def judged(
    model: TransformerLM,
    half: Half,
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    rows: np.ndarray,
) -> dict[str, tuple[Difference, float]]:
    """For each point of a model of one layer the difference in these rows, and the distance that rounding may make."""
    scale = half.scale
    near = partial(nudged, step=scale.step)
    with jax.default_matmul_precision("highest"):
        found = run_points(model, *_put((dict(inputs), half.beside)))
        moved = run_points(model, *_put(jax.tree.map(near, (dict(inputs), half.beside))))
    results = {}
    for name, expected in outputs.items():
        kind = POINTS[name].kind
        n = longest_sum(kind, model.config, scale.length)
        # A norm takes each row by itself, wherever the axis of positions stands, and heads may come before it.
        chosen = np.ones(expected.shape[:-1], bool) if kind == "norm" else rows
        results[name] = compared(
            np.asarray(found[name]), np.asarray(moved[name]), expected, chosen, scale, scale.relative(n)
        )
    return results


def _put(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


class Run(NamedTuple):
    """One stack of blocks from its tokens on: the stream behind every layer, the end of it, and logits."""

    hidden: dict[int, np.ndarray]
    end: np.ndarray
    logits: np.ndarray


@jax.jit
def _whole(model: TransformerLM, tokens: jax.Array, beside: Beside) -> Run:
    memory = None if beside.memory is None else model.project_memory(beside.memory, beside.memory_positions)
    out = model(
        tokens,
        positions=beside.positions,
        token_types=beside.types,
        memory=memory,
        capture=Capture(hidden="all"),
    )
    last = out.captured.hidden[model.config.depth - 1]
    return Run(out.captured.hidden, last if model.final_norm is None else model.final_norm(last), out.logits)


def streams(halves: Sequence[Half]) -> list[tuple[Run, Run]]:
    """Of every half our whole model as users run it, and again with a nudged embedding, from end to end."""
    found, memories = [], (None, None)
    for half in halves:
        embedding = np.asarray(arrays_by_path(half.whole)["embedding"])
        other = arrays_by_path(half.whole) | {"embedding": jnp.asarray(nudged(embedding, half.scale.step))}
        models = half.whole, replace_arrays(half.whole, other, "embedding")
        with jax.default_matmul_precision("highest"):
            runs = [
                _whole(model, *_put((half.read.tokens, half.beside._replace(memory=memory))))
                for model, memory in zip(models, memories, strict=True)
            ]
        found.append(tuple(jax.tree.map(np.asarray, run) for run in runs))
        memories = tuple(run.end for run in runs)
    return found


def changed(model: TransformerLM, **fields: Any) -> TransformerLM:
    """The same arrays in a model of another config, which may use fewer."""
    config = LMConfig(**_fields(model.config) | fields)
    abstract, arrays = jax.eval_shape(lambda: models.create(config)), arrays_by_path(model)
    kept = {name: arrays[name] for name in arrays_by_path(abstract) if name in arrays}
    return replace_arrays(abstract, kept, "config: expected one with the same arrays")
