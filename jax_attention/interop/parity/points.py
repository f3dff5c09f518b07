"""Points of comparison: a table of the parts of a model, with their arrays and what the JAX side computes there.

Every point is *local*: the JAX part gets the input that the part in transformers got, so no error of an earlier layer
arrives there. The module in transformers is not written down again. The input of a point goes into the module that
holds the first of its arrays in the family's table of weights, and its output comes from the module that holds the
last. So it does not matter whether that module is just the part, or also contains the residual sum and a norm (BERT's
attention), or whether there is no such module at all (the feed-forward layers of BERT and BART).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import jax

from jax_attention.cache import KVCache, filled
from jax_attention.core.short_repr import short_repr
from jax_attention.interop.weight_mapping import WeightMapping
from jax_attention.models import Capture, TransformerLM
from jax_attention.models.block import Block, CaptureRequest, LayerInputs
from jax_attention.models.results import EMBEDDING
from jax_attention.nn.freeze import unfreeze

BLOCK = "blocks.rest.{layer}"


@short_repr
class StackInputs(NamedTuple):
    """Inputs of a stack of blocks other than its tokens: their positions and types, and for a decoder the encoder's
    output with its positions.
    """

    positions: Any
    types: Any = None
    memory: Any = None
    memory_positions: Any = None


@dataclass(frozen=True)
class Point:
    """A part of a model. `run(model, x, inputs)` computes it in a JAX model that has only the layer in question."""

    name: str
    kind: str
    """Kind of part: it selects the hypotheses that may explain a difference."""
    path: str
    """First part of the names of its arrays; `{layer}` stands for the layer."""
    run: Callable[[TransformerLM, jax.Array, StackInputs], jax.Array]
    first: str = ""
    """Below `path`: the arrays that multiply the input. Empty: all of them."""
    last: str = ""
    """Below `path`: the arrays that give the output. Empty: all of them."""

    def ends(self, layer: int | None) -> tuple[str, str]:
        """Paths of its first and of its last arrays."""
        first, last = (f"{self.path}.{end}" if end else self.path for end in (self.first, self.last))
        return first.format(layer=layer), last.format(layer=layer)


def _block(model: TransformerLM) -> Block:
    return model.blocks.rest[0]


def _layer_inputs(model: TransformerLM, inputs: StackInputs) -> LayerInputs:
    return LayerInputs(inputs.positions, filled(), model.shared_mods())


def _run_embedding(model: TransformerLM, tokens: jax.Array, inputs: StackInputs) -> jax.Array:
    capture, memory = Capture(hidden=(EMBEDDING,)), None
    if inputs.memory is not None:
        memory = model.project_memory(inputs.memory, inputs.memory_positions)
    out = model(tokens, positions=inputs.positions, token_types=inputs.types, memory=memory, capture=capture)
    return out.captured.hidden[EMBEDDING]


def _project_memory(model: TransformerLM, inputs: StackInputs) -> KVCache:
    return _block(model).cross.project_memory(inputs.memory, positions=inputs.memory_positions)


def _run_block(model: TransformerLM, x: jax.Array, inputs: StackInputs) -> jax.Array:
    memory = None if inputs.memory is None else _project_memory(model, inputs)
    return _block(model)(x, _layer_inputs(model, inputs), None, memory, None, CaptureRequest(False, False))[0]


def _run_attention(model: TransformerLM, x: jax.Array, inputs: StackInputs) -> jax.Array:
    block, shared = _block(model), _layer_inputs(model, inputs)
    block_mods = tuple(unfreeze(mod) for mod in block.mods)
    mods = (*shared.mods, *block_mods)
    return block.attention(x, mask=shared.mask, mods=mods, query_positions=inputs.positions)


def _run_cross_attention(model: TransformerLM, x: jax.Array, inputs: StackInputs) -> jax.Array:
    return _block(model).cross.cross_attend(x, _project_memory(model, inputs))


def _run_head(model: TransformerLM, x: jax.Array, inputs: StackInputs) -> jax.Array:
    return model.unembed(x)


def _run_layer(path: str) -> Callable[[Any, jax.Array, StackInputs], jax.Array]:
    """Call the layer at this path, which takes one array."""

    def run(model: Any, x: jax.Array, inputs: StackInputs) -> jax.Array:
        layer = model
        for name in path.split("."):
            layer = getattr(layer, name)
        return layer(x)

    return run


def _norm(name: str, path: str) -> Point:
    return Point(name, "norm", path, _run_layer(path))


def _in_block(name: str, kind: str, path: str, **ends: str) -> Point:
    """A layer of the block that is called with one array."""
    run = _run_layer(path)
    return Point(name, kind, f"{BLOCK}.{path}", lambda model, x, inputs: run(_block(model), x, inputs), **ends)


BEFORE = (_norm("embedding norm", "embedding_norm"), Point("embedding", "embedding", "embedding", _run_embedding))
IN_BLOCK = (
    _in_block("attention norm", "norm", "attention_norm"),
    _in_block("query norm", "norm", "attention.query_norm"),
    _in_block("key norm", "norm", "attention.key_norm"),
    Point("attention", "attention", f"{BLOCK}.attention", _run_attention, first="projections", last="out"),
    _in_block("norm after attention", "norm", "attention_after"),
    _in_block("cross-attention norm", "norm", "cross_norm"),
    Point(
        "cross-attention",
        "cross-attention",
        f"{BLOCK}.cross",
        _run_cross_attention,
        first="projections.query",
        last="out",
    ),
    _in_block("feed-forward norm", "norm", "feed_forward_norm"),
    _in_block("feed-forward", "feed-forward", "feed_forward", first="up", last="down"),
    _in_block("norm after feed-forward", "norm", "feed_forward_after"),
    Point("block", "block", BLOCK, _run_block),
)
"""Points of a block. Rows of a report come in the order in which transformers computed them, so a block follows its
parts: it is the suspect only if none of them is.
"""
AFTER = (_norm("final norm", "final_norm"), _norm("head norm", "head_norm"), Point("head", "head", "head", _run_head))
POINTS = {point.name: point for point in (*BEFORE, *IN_BLOCK, *AFTER)}
UNHOOKED = ("embedding", "head")
"""Points without hooks: their inputs and outputs are those of other points, and of the model."""


def hf_module_name(mappings: Iterable[WeightMapping], path: str) -> str | None:
    """Name of the innermost module in transformers that holds all arrays below a path; None if there are none."""
    names = [
        name
        for mapping in mappings
        if any(jax_name.startswith(f"{path}.") for jax_name in mapping.jax_names)
        for name in mapping.torch_names
    ]
    modules = [name.split(".")[:-1] for name in names]
    common = takewhile(lambda steps: len(set(steps)) == 1, zip(*modules, strict=False))
    return ".".join(steps[0] for steps in common) if modules else None


@jax.jit
def run_points(model: TransformerLM, arrays: dict[str, jax.Array], inputs: StackInputs) -> dict[str, jax.Array]:
    """Outputs of a JAX model of one layer at its points, by name. Layers of one kind compile once."""
    return {name: POINTS[name].run(model, x, inputs) for name, x in arrays.items()}
