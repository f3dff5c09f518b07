"""A model as one stack of blocks or two, each with all that is known of it: ours, what it read, what theirs did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jax_attention.cache import EMPTY
from jax_attention.core.checks import fail_unless
from jax_attention.core.tree_paths import arrays_by_path
from jax_attention.interop.entries import Entry
from jax_attention.interop.family import Config, Family
from jax_attention.interop.report.points import Beside
from jax_attention.interop.report.rounding import Scale
from jax_attention.interop.report.theirs import Trace, hooked, traced
from jax_attention.interop.report.tokens import ENCODER, Read
from jax_attention.models import EncoderDecoder, LMConfig, TransformerLM, unroll_layers

DECODER = "decoder"


@dataclass(frozen=True)
class Half:
    """The encoder or the decoder of a pair, or a model that has one stack of blocks; its name is then empty."""

    name: str
    whole: TransformerLM
    """As it was given, scanned or not."""
    model: TransformerLM
    """The same, block by block."""
    read: Read
    beside: Beside
    trace: Trace
    scale: Scale
    before: int
    """Layers through which what it reads has gone already: those of the encoder."""

    @property
    def unpadded(self) -> np.ndarray:
        """Tokens, `[B, T]`, of rows without padding, of the source neither; or all if every row has some."""
        whole = self.read.seen.all(axis=-1)
        if self.beside.memory_positions is not None:
            whole &= (self.beside.memory_positions != EMPTY).all(axis=-1)
        return self.read.seen & whole[:, None] if whole.any() else self.read.seen


def halves_of(ours: TransformerLM | EncoderDecoder) -> dict[str, TransformerLM]:
    """Models of one stack of blocks, in the order in which they run."""
    if isinstance(ours, TransformerLM):
        return {"": ours}
    encoder = jax.tree.map(lambda x: x, ours.encoder)
    encoder.embedding = ours.decoder.embedding if ours.config.shared_embedding else encoder.embedding
    return {ENCODER: encoder, DECODER: ours.decoder}


def configs_of(config: Config) -> dict[str, LMConfig]:
    """Of the halves."""
    return {"": config} if isinstance(config, LMConfig) else {ENCODER: config.encoder, DECODER: config.decoder}


def run_theirs(
    theirs: Any, family: Family, ours: TransformerLM | EncoderDecoder, reads: Mapping[str, Read], eps: float
) -> list[Half]:
    """All halves in the order in which they run, theirs run once."""
    wholes = halves_of(ours)
    models = {half: unroll_layers(model) if model.config.scan else model for half, model in wholes.items()}
    tables = {half: _table(family, ours.config, half, model) for half, model in models.items()}
    places = {half: hooked(theirs, tables[half], model.config.depth, half) for half, model in models.items()}
    tokens = {half: read.tokens for half, read in reads.items()}
    call = _pair_call(reads) if family.pair else _call(theirs, tables[""], ours.config, reads[""])
    traces = traced(theirs, places, tokens, call, has_head(family, ours.config))
    scale = Scale(eps, max(x.shape[-1] for x in tokens.values()))
    found: list[Half] = []
    memory, before = {}, 0
    for half, read in reads.items():
        beside = Beside(read.positions(of_seen=not family.pair), read.types, **memory)
        found.append(Half(half, wholes[half], models[half], read, beside, traces[half], scale, before))
        memory = {"memory": traces[half].end, "memory_positions": beside.positions}
        before += models[half].config.depth
    return found


def has_head(family: Family, config: Config) -> bool:
    """Whether our model has the head that theirs has: folders of bare encoders have none."""
    return not family.headless or any(getattr(config, name) != x for name, x in family.headless.items())


def _table(family: Family, config: Config, half: str, model: TransformerLM) -> list[Entry]:
    """The entries of what this half has, under the names that its arrays have there."""
    arrays, start = arrays_by_path(model), f"{half}." if half else ""
    entries = [
        dataclasses.replace(entry, ours=tuple(name.removeprefix(start) for name in entry.ours))
        for entry in family.entries(config)
        if all(name.startswith(start) for name in entry.ours)
    ]
    normed = any(name.startswith("final_norm.") for entry in entries for name in entry.ours)
    words = {True: "a last norm", False: "no last norm"}
    fail_unless(
        normed == (model.final_norm is not None),
        f"ours: expected a model with {words[normed]}, as theirs, got norm_place = {model.config.norm_place!r}.",
    )
    return [entry for entry in entries if all(name in arrays for name in entry.ours)]


def _call(theirs: Any, table: list[Entry], config: LMConfig, read: Read) -> dict[str, np.ndarray]:
    """Positions of theirs are rows of their table, which may begin with some that no token reads."""
    shapes = {name: x.shape for name, x in theirs.named_parameters()}
    rows = next((shapes[entry.theirs[0]][0] for entry in table if entry.ours == ("position",)), config.context)
    places = np.where(read.seen, read.positions(of_seen=True), 0) + rows - config.context
    call = {"input_ids": read.tokens, "attention_mask": read.seen, "position_ids": places, "token_type_ids": read.types}
    return {name: x.astype(np.int64) for name, x in call.items() if x is not None}


def _pair_call(reads: Mapping[str, Read]) -> dict[str, np.ndarray]:
    """Pairs count positions by themselves, padding too."""
    source, target = reads[ENCODER], reads[DECODER]
    call = {"input_ids": source.tokens, "attention_mask": source.seen}
    call |= {"decoder_input_ids": target.tokens, "decoder_attention_mask": target.seen}
    return {name: x.astype(np.int64) for name, x in call.items()}
