"""What is compared: a table of points, each with the arrays of ours that it uses and what we compute there.

Every point is *local*: our part gets the input that their part got, so that no error of an earlier layer arrives there.
Where it stands on their side is not written down again: it is the module that holds the same arrays in the family's
table of entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import jax

from jax_attention.cache import filled
from jax_attention.interop.entries import Entry
from jax_attention.models import Capture, TransformerLM
from jax_attention.models.block import Block, Shared, Wanted
from jax_attention.models.results import EMBEDDING
from jax_attention.nn.hold import release

BLOCK = "blocks.rest.{layer}"


@dataclass(frozen=True)
class Point:
    """A part of a model, ours being a model of one layer: `run(model, input, positions)`."""

    name: str
    kind: str
    """What can be wrong with it: the hypotheses go by this."""
    ours: str
    """What the names of its arrays begin with; `{layer}` stands for the layer."""
    run: Callable[[TransformerLM, jax.Array, jax.Array], jax.Array]


def _block(model: TransformerLM) -> Block:
    return model.blocks.rest[0]


def _shared(positions: jax.Array) -> Shared:
    return Shared(positions, filled(), ())


def _embedding(model: TransformerLM, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    capture = Capture(hidden=(EMBEDDING,))
    return model(tokens, positions=positions, capture=capture).captured.hidden[EMBEDDING]


def _whole_block(model: TransformerLM, x: jax.Array, positions: jax.Array) -> jax.Array:
    return _block(model)(x, _shared(positions), None, None, None, Wanted(False, False))[0]


def _attention(model: TransformerLM, x: jax.Array, positions: jax.Array) -> jax.Array:
    block, shared = _block(model), _shared(positions)
    own = tuple(release(mod) for mod in block.mods)
    return block.attention(x, mask=shared.mask, mods=own, query_positions=positions)


def _head(model: TransformerLM, x: jax.Array, positions: jax.Array) -> jax.Array:
    return model.unembed(x)


def _final_norm(model: TransformerLM, x: jax.Array, positions: jax.Array) -> jax.Array:
    return model.final_norm(x)


def _part(name: str, kind: str, path: str) -> Point:
    """A layer within the block that is called with one array."""

    def run(model: TransformerLM, x: jax.Array, positions: jax.Array) -> jax.Array:
        part: Any = _block(model)
        for step in path.split("."):
            part = getattr(part, step)
        return part(x)

    return Point(name, kind, f"{BLOCK}.{path}", run)


BEFORE = (Point("embedding", "embedding", "embedding", _embedding),)
IN_BLOCK = (
    _part("attention norm", "norm", "attention_norm"),
    _part("query norm", "norm", "attention.query_norm"),
    _part("key norm", "norm", "attention.key_norm"),
    Point("attention", "attention", f"{BLOCK}.attention", _attention),
    _part("norm after attention", "norm", "attention_after"),
    _part("feed-forward norm", "norm", "feed_forward_norm"),
    _part("feed-forward", "feed-forward", "feed_forward"),
    _part("norm after feed-forward", "norm", "feed_forward_after"),
    Point("block", "block", BLOCK, _whole_block),
)
"""In the order in which a fault is looked for: a block is wrong by itself if none of its parts is."""
AFTER = (Point("final norm", "norm", "final_norm", _final_norm), Point("head", "head", "head", _head))
POINTS = {point.name: point for point in (*BEFORE, *IN_BLOCK, *AFTER)}


def module_of(entries: Iterable[Entry], ours: str) -> str | None:
    """The module of theirs that holds exactly what begins with this in ours; None where the model has no such part."""
    names = [name for entry in entries if any(x.startswith(f"{ours}.") for x in entry.ours) for name in entry.theirs]
    paths = [name.split(".")[:-1] for name in names]
    together = takewhile(lambda steps: len(set(steps)) == 1, zip(*paths, strict=False))
    return ".".join(steps[0] for steps in together) if paths else None


@jax.jit
def run_points(model: TransformerLM, inputs: dict[str, jax.Array], positions: jax.Array) -> dict[str, jax.Array]:
    """What our model of one layer makes of the inputs, by the names of points; layers of one kind compile once."""
    return {name: POINTS[name].run(model, x, positions) for name, x in inputs.items()}
