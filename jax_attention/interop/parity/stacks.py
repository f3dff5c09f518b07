"""A model as one stack of blocks or two (encoder, decoder), each with its tokens and its trace in transformers."""

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
from jax_attention.interop.hf.family import Config, Family
from jax_attention.interop.parity.hf_run import Trace, hook_modules, trace_model
from jax_attention.interop.parity.points import StackInputs
from jax_attention.interop.parity.rounding import Tolerance
from jax_attention.interop.parity.token_batch import ENCODER, TokenBatch
from jax_attention.interop.weight_mapping import WeightMapping
from jax_attention.models import EncoderDecoder, LMConfig, TransformerLM, unroll_layers

DECODER = "decoder"


@dataclass(frozen=True)
class Stack:
    """The encoder or the decoder of a model, or a model that has only one stack of blocks; its name is then empty."""

    name: str
    model: TransformerLM
    """The JAX model of the caller, scanned or not."""
    unrolled: TransformerLM
    """The same model with unrolled blocks."""
    batch: TokenBatch
    inputs: StackInputs
    trace: Trace
    tolerance: Tolerance
    layers_before: int
    """Layers that its inputs went through: those of the encoder, for a decoder."""

    @property
    def rows_without_padding(self) -> np.ndarray:
        """Whether a token, `[B, T]`, is in a row without padding, in the source as well. All tokens if every row has
        some padding.
        """
        is_whole = self.batch.is_token.all(axis=-1)
        if self.inputs.memory_positions is not None:
            is_whole &= (self.inputs.memory_positions != EMPTY).all(axis=-1)
        return self.batch.is_token & is_whole[:, None] if is_whole.any() else self.batch.is_token


def split_model(model: TransformerLM | EncoderDecoder) -> dict[str, TransformerLM]:
    """The stacks of a JAX model by name, in the order in which they run."""
    if isinstance(model, TransformerLM):
        return {"": model}
    encoder = jax.tree.map(lambda x: x, model.encoder)
    encoder.embedding = model.decoder.embedding if model.config.shared_embedding else encoder.embedding
    return {ENCODER: encoder, DECODER: model.decoder}


def split_config(config: Config) -> dict[str, LMConfig]:
    """The configs of the stacks by name, in the order in which they run."""
    return {"": config} if isinstance(config, LMConfig) else {ENCODER: config.encoder, DECODER: config.decoder}


def trace_stacks(
    hf_model: Any,
    family: Family,
    jax_model: TransformerLM | EncoderDecoder,
    batches: Mapping[str, TokenBatch],
    eps: float,
) -> list[Stack]:
    """All stacks in the order in which they run, after one call of the model in transformers."""
    models = split_model(jax_model)
    unrolled = {name: unroll_layers(model) if model.config.scan else model for name, model in models.items()}
    tables = {name: _weight_table(family, jax_model.config, name, model) for name, model in unrolled.items()}
    modules = {name: hook_modules(hf_model, tables[name], model.config.depth, name) for name, model in unrolled.items()}
    tokens = {name: batch.tokens for name, batch in batches.items()}
    if family.is_encoder_decoder:
        arguments = _encoder_decoder_arguments(batches)
    else:
        arguments = _decoder_arguments(hf_model, tables[""], jax_model.config, batches[""])
    traces = trace_model(hf_model, modules, tokens, arguments, has_head(family, jax_model.config))
    tolerance = Tolerance(eps, max(x.shape[-1] for x in tokens.values()))
    stacks: list[Stack] = []
    memory, layers_before = {}, 0
    for name, batch in batches.items():
        positions = batch.positions(skip_padding=not family.is_encoder_decoder)
        inputs = StackInputs(positions, batch.types, **memory)
        stacks.append(Stack(name, models[name], unrolled[name], batch, inputs, traces[name], tolerance, layers_before))
        memory = {"memory": traces[name].final_hidden, "memory_positions": positions}
        layers_before += unrolled[name].config.depth
    return stacks


def has_head(family: Family, config: Config) -> bool:
    """Whether a JAX model has the family's head: folders of bare encoders have none."""
    return not family.headless or any(getattr(config, name) != x for name, x in family.headless.items())


def _weight_table(family: Family, config: Config, stack: str, model: TransformerLM) -> list[WeightMapping]:
    """The weight mappings of the arrays of one stack, with names relative to it."""
    arrays, prefix = arrays_by_path(model), f"{stack}." if stack else ""
    mappings = [
        dataclasses.replace(mapping, jax_names=tuple(name.removeprefix(prefix) for name in mapping.jax_names))
        for mapping in family.weight_mappings(config)
        if all(name.startswith(prefix) for name in mapping.jax_names)
    ]
    has_norm = any(name.startswith("final_norm.") for mapping in mappings for name in mapping.jax_names)
    words = {True: "a last norm", False: "no last norm"}
    fail_unless(
        has_norm == (model.final_norm is not None),
        f"jax_model: expected a model with {words[has_norm]}, as hf_model has, got norm_place = "
        f"{model.config.norm_place!r}.",
    )
    return [mapping for mapping in mappings if all(name in arrays for name in mapping.jax_names)]


def _decoder_arguments(
    hf_model: Any, table: list[WeightMapping], config: LMConfig, batch: TokenBatch
) -> dict[str, np.ndarray]:
    """Arguments of an encoder or decoder in transformers. Its position ids are rows of its table, which may begin with
    some that no token reads (RoBERTa).
    """
    shapes = {name: x.shape for name, x in hf_model.named_parameters()}
    rows = next((shapes[m.torch_names[0]][0] for m in table if m.jax_names == ("position",)), config.context)
    positions = np.where(batch.is_token, batch.positions(skip_padding=True), 0) + rows - config.context
    arguments = {
        "input_ids": batch.tokens,
        "attention_mask": batch.is_token,
        "position_ids": positions,
        "token_type_ids": batch.types,
    }
    return {name: x.astype(np.int64) for name, x in arguments.items() if x is not None}


def _encoder_decoder_arguments(batches: Mapping[str, TokenBatch]) -> dict[str, np.ndarray]:
    """Arguments of an encoder-decoder in transformers. It takes no positions: it counts columns, padding included."""
    source, target = batches[ENCODER], batches[DECODER]
    arguments = {"input_ids": source.tokens, "attention_mask": source.is_token}
    arguments |= {"decoder_input_ids": target.tokens, "decoder_attention_mask": target.is_token}
    return {name: x.astype(np.int64) for name, x in arguments.items()}
