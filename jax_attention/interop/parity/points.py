"""What is compared: a table of points, each with the arrays of ours that it uses and what we compute there.

Every point is *local*: our part gets the input that their part got, so that no error of an earlier layer arrives there.
Where it stands on their side is not written down again: its input goes into the module that holds the first of its
arrays in the family's table of entries, its output comes from the one that holds the last. So it does not matter
whether a module of theirs is the part, or has its residual sum and norm inside (BERT's attention), or is not there at
all (the feed-forward of BERT and BART).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import jax

from jax_attention.cache import KVCache, filled
from jax_attention.interop.weight_mapping import Entry
from jax_attention.models import Capture, TransformerLM
from jax_attention.models.block import Block, CaptureRequest, LayerInputs
from jax_attention.models.results import EMBEDDING
from jax_attention.nn.freeze import unfreeze

BLOCK = "blocks.rest.{layer}"


class Beside(NamedTuple):
    """What a stack of blocks reads beside its stream: where tokens stand and of which type they are; what the encoder
    made of a source, and where that stands.
    """

    positions: Any
    types: Any = None
    memory: Any = None
    memory_positions: Any = None


@dataclass(frozen=True)
class Point:
    """A part of a model, ours being a model of one layer: `run(model, input, beside)`."""

    name: str
    kind: str
    """What can be wrong with it: the hypotheses go by this."""
    ours: str
    """What the names of its arrays begin with; `{layer}` stands for the layer."""
    run: Callable[[TransformerLM, jax.Array, Beside], jax.Array]
    first: str = ""
    """Of its arrays, those that its input meets; empty is all of them."""
    last: str = ""
    """Those that its output comes from."""

    def sides(self, layer: int | None) -> tuple[str, str]:
        """What the names of the first of its arrays begin with, and of the last."""
        first, last = (f"{self.ours}.{part}" if part else self.ours for part in (self.first, self.last))
        return first.format(layer=layer), last.format(layer=layer)


def _block(model: TransformerLM) -> Block:
    return model.blocks.rest[0]


def _shared(model: TransformerLM, beside: Beside) -> LayerInputs:
    return LayerInputs(beside.positions, filled(), model.shared_mods())


def _embedding(model: TransformerLM, tokens: jax.Array, beside: Beside) -> jax.Array:
    capture, memory = Capture(hidden=(EMBEDDING,)), None
    if beside.memory is not None:
        memory = model.project_memory(beside.memory, beside.memory_positions)
    out = model(tokens, positions=beside.positions, token_types=beside.types, memory=memory, capture=capture)
    return out.captured.hidden[EMBEDDING]


def _remembered(model: TransformerLM, beside: Beside) -> KVCache:
    return _block(model).cross.project_memory(beside.memory, positions=beside.memory_positions)


def _whole_block(model: TransformerLM, x: jax.Array, beside: Beside) -> jax.Array:
    memory = None if beside.memory is None else _remembered(model, beside)
    return _block(model)(x, _shared(model, beside), None, memory, None, CaptureRequest(False, False))[0]


def _attention(model: TransformerLM, x: jax.Array, beside: Beside) -> jax.Array:
    block, shared = _block(model), _shared(model, beside)
    own = tuple(unfreeze(mod) for mod in block.mods)
    return block.attention(x, mask=shared.mask, mods=(*shared.mods, *own), query_positions=beside.positions)


def _cross(model: TransformerLM, x: jax.Array, beside: Beside) -> jax.Array:
    return _block(model).cross.cross_attend(x, _remembered(model, beside))


def _head(model: TransformerLM, x: jax.Array, beside: Beside) -> jax.Array:
    return model.unembed(x)


def _layer(path: str) -> Callable[[TransformerLM, jax.Array, Beside], jax.Array]:
    """A layer that is called with one array."""

    def run(model: TransformerLM, x: jax.Array, beside: Beside) -> jax.Array:
        part: Any = model
        for step in path.split("."):
            part = getattr(part, step)
        return part(x)

    return run


def _norm(name: str, path: str) -> Point:
    return Point(name, "norm", path, _layer(path))


def _in_block(name: str, kind: str, path: str, **ends: str) -> Point:
    """A layer within the block that is called with one array."""
    run = _layer(path)
    return Point(name, kind, f"{BLOCK}.{path}", lambda model, x, beside: run(_block(model), x, beside), **ends)


BEFORE = (_norm("embedding norm", "embedding_norm"), Point("embedding", "embedding", "embedding", _embedding))
IN_BLOCK = (
    _in_block("attention norm", "norm", "attention_norm"),
    _in_block("query norm", "norm", "attention.query_norm"),
    _in_block("key norm", "norm", "attention.key_norm"),
    Point("attention", "attention", f"{BLOCK}.attention", _attention, first="projections", last="out"),
    _in_block("norm after attention", "norm", "attention_after"),
    _in_block("cross-attention norm", "norm", "cross_norm"),
    Point("cross-attention", "cross-attention", f"{BLOCK}.cross", _cross, first="projections.query", last="out"),
    _in_block("feed-forward norm", "norm", "feed_forward_norm"),
    _in_block("feed-forward", "feed-forward", "feed_forward", first="up", last="down"),
    _in_block("norm after feed-forward", "norm", "feed_forward_after"),
    Point("block", "block", BLOCK, _whole_block),
)
"""Rows stand in the order in which theirs computed them, a block behind its parts: it is wrong by itself if none of
them is.
"""
AFTER = (_norm("final norm", "final_norm"), _norm("head norm", "head_norm"), Point("head", "head", "head", _head))
POINTS = {point.name: point for point in (*BEFORE, *IN_BLOCK, *AFTER)}
UNHOOKED = ("embedding", "head")
"""Their inputs and outputs are those of their neighbours, and of the model."""


def module_of(entries: Iterable[Entry], ours: str) -> str | None:
    """The module of theirs that holds exactly what begins with this in ours; None where the model has no such part."""
    names = [name for entry in entries if any(x.startswith(f"{ours}.") for x in entry.ours) for name in entry.theirs]
    paths = [name.split(".")[:-1] for name in names]
    together = takewhile(lambda steps: len(set(steps)) == 1, zip(*paths, strict=False))
    return ".".join(steps[0] for steps in together) if paths else None


@jax.jit
def run_points(model: TransformerLM, inputs: dict[str, jax.Array], beside: Beside) -> dict[str, jax.Array]:
    """What our model of one layer makes of the inputs, by the names of points; layers of one kind compile once."""
    return {name: POINTS[name].run(model, x, beside) for name, x in inputs.items()}
