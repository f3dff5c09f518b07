"""The JAX side: a model of one layer at single points, with its config changed or not, and the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import models, mods
from jax_attention.core.short_repr import short_repr
from jax_attention.core.tree_paths import arrays_by_path, replace_arrays
from jax_attention.interop.parity.difference import Difference
from jax_attention.interop.parity.points import POINTS, StackInputs, run_points
from jax_attention.interop.parity.rounding import difference_and_allowed, longest_sum, perturbed
from jax_attention.interop.parity.stacks import Stack
from jax_attention.models import Capture, LMConfig, TransformerLM
from jax_attention.models.blocks import restack


def single_layer(model: TransformerLM, layer: int) -> TransformerLM:
    """A model with only this layer of an unrolled model, and the same embedding, last norm and head."""
    config = model.config
    copy = jax.tree.map(lambda x: x, model)
    copy.config = LMConfig(**_fields(config) | {"depth": 1, "windows": (config.window(layer),)})
    copy.blocks = restack([model.blocks.rest[layer]], copy.config)
    if config.scale_by_layer:  # the only layer of the copy would be number 0
        return with_fields(copy, scale_by_layer=False, mods=(mods.temperature(layer + 1.0), *config.mods))
    return copy


def with_fields(model: TransformerLM, **fields: Any) -> TransformerLM:
    """A model of another config with the same arrays, as far as it has them."""
    config = LMConfig(**_fields(model.config) | fields)
    abstract, arrays = jax.eval_shape(lambda: models.create(config)), arrays_by_path(model)
    kept = {name: arrays[name] for name in arrays_by_path(abstract) if name in arrays}
    return replace_arrays(abstract, kept, "config: expected one with the same arrays")


def _fields(config: LMConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in LMConfig.__dataclass_fields__}


# --- Single points ---------------------------------------------------------------------------------------------------


def compare_points(
    model: TransformerLM,
    stack: Stack,
    hf_inputs: Mapping[str, np.ndarray],
    hf_outputs: Mapping[str, np.ndarray],
    rows: np.ndarray,
) -> dict[str, tuple[Difference, float]]:
    """The difference at each point of a JAX model of one layer, and the largest that rounding explains.

    Args:
        model: from `single_layer`, possibly changed.
        stack: the stack that the layer belongs to.
        hf_inputs: inputs in transformers by the names of points.
        hf_outputs: outputs in transformers by the names of points.
        rows: `[B, T]`, whether a token is compared.
    """
    tolerance = stack.tolerance
    perturb = partial(perturbed, step=tolerance.step)
    with jax.default_matmul_precision("highest"):
        outputs = run_points(model, *_to_jax((dict(hf_inputs), stack.inputs)))
        moved = run_points(model, *_to_jax(jax.tree.map(perturb, (dict(hf_inputs), stack.inputs))))
    results = {}
    for name, hf_output in hf_outputs.items():
        kind = POINTS[name].kind
        n = longest_sum(kind, model.config, tolerance.length)
        # A norm treats each row by itself, so padding cannot reach other rows and all are compared. Its arrays may have
        # a head axis before or after the axis of positions, which `rows` would not fit.
        compared = np.ones(hf_output.shape[:-1], bool) if kind == "norm" else rows
        arrays = np.asarray(outputs[name]), np.asarray(moved[name]), hf_output
        results[name] = difference_and_allowed(*arrays, compared, tolerance, tolerance.relative(n))
    return results


def _to_jax(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


# --- The whole model -------------------------------------------------------------------------------------------------


@short_repr
class StackRun(NamedTuple):
    """One run of a stack from its tokens on: the hidden states after each layer and after the last norm, and logits."""

    hidden: dict[int, np.ndarray]
    final_hidden: np.ndarray
    logits: np.ndarray


@jax.jit
def _run_stack(model: TransformerLM, tokens: jax.Array, inputs: StackInputs) -> StackRun:
    memory = None if inputs.memory is None else model.project_memory(inputs.memory, inputs.memory_positions)
    out = model(
        tokens,
        positions=inputs.positions,
        token_types=inputs.types,
        memory=memory,
        capture=Capture(hidden="all"),
    )
    last = out.captured.hidden[model.config.depth - 1]
    return StackRun(out.captured.hidden, last if model.final_norm is None else model.final_norm(last), out.logits)


def run_whole_model(stacks: Sequence[Stack]) -> list[tuple[StackRun, StackRun]]:
    """Run every stack of the caller's model end to end, and again with a perturbed embedding.

    A decoder reads the memory of the same run of the encoder, so that its second run shows the effect of both
    embeddings.
    """
    runs, memories = [], (None, None)
    for stack in stacks:
        embedding = np.asarray(arrays_by_path(stack.model)["embedding"])
        moved = arrays_by_path(stack.model) | {"embedding": jnp.asarray(perturbed(embedding, stack.tolerance.step))}
        both_models = stack.model, replace_arrays(stack.model, moved, "embedding")
        with jax.default_matmul_precision("highest"):
            both = [
                _run_stack(model, *_to_jax((stack.batch.tokens, stack.inputs._replace(memory=memory))))
                for model, memory in zip(both_models, memories, strict=True)
            ]
        both = tuple(jax.tree.map(np.asarray, run) for run in both)
        runs.append(both)
        memories = tuple(run.final_hidden for run in both)
    return runs
