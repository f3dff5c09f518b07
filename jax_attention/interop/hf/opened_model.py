"""A model folder whose config and headers of weights agree; nothing is built and no numbers are read before that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import models
from jax_attention.core.checks import fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.core.text import list_names, quote_path
from jax_attention.core.tree_paths import replace_arrays
from jax_attention.interop.hf.canonical_weights import canonicalized
from jax_attention.interop.hf.config import config_from_fields, family_of, read_fields
from jax_attention.interop.hf.family import Config, Family
from jax_attention.interop.hf.stored_weights import StoredArray, open_weights
from jax_attention.interop.weight_mapping import to_jax_arrays
from jax_attention.models import EncoderDecoderConfig

TASK_HEAD = re.compile(r"(^|\.)(score|classifier|pre_classifier|classification_head|qa_outputs)\.")
"""Names of arrays in the heads of classifiers and of models that mark answers in a text."""


@short_repr
class OpenedModel(NamedTuple):
    """The family, the model without numbers, and the arrays in files that fit it, under the names of the family."""

    family: Family
    abstract: Any
    stored: dict[str, StoredArray]
    expectation: str
    """Beginning of messages about the arrays."""


def open_model(
    folder: Path,
    *,
    dtype: str | None = None,
    param_dtype: str | None = None,
    allow_pickle: bool = False,
    ignore_fields: Iterable[str] = (),
) -> OpenedModel:
    """Read the config and the headers of the weights, and compare layers, names, shapes and dtypes.

    Files that do not belong together are refused in the time that the headers take to read, however large the model is
    that they describe.
    """
    fields = read_fields(folder, ignore_fields)
    family, stored = family_of(fields), open_weights(folder, allow_pickle)
    _check_task(fields, family, stored)
    config = config_from_fields(family, fields)
    _check_depth(config, stored)
    config, stored = canonicalized(family, config, stored)
    param_dtype = _widest(stored) if param_dtype is None else param_dtype
    config = config.replace(dtype=dtype or param_dtype, param_dtype=param_dtype)
    expectation = (
        f"path: expected the arrays of a {family.model_type} of this config in {quote_path(folder)}"
        f"{_other_architecture(fields, family)}"
    )
    placeholders = {name: x.placeholder() for name, x in stored.items()}
    shapes = to_jax_arrays(family.weight_mappings(config), placeholders, expectation, keep=_shape)
    abstract = jax.eval_shape(lambda: models.create(config))
    replace_arrays(abstract, shapes, expectation)
    return OpenedModel(family, abstract, stored, expectation)


def _check_task(fields: Mapping[str, Any], family: Family, stored: Mapping[str, StoredArray]) -> None:
    """Refuse a model with the head of another task, which would be lost."""
    heads = [name for name in stored if TASK_HEAD.search(name)]
    named = fields.get("architectures")
    got = list_names(named[:1]) if isinstance(named, list) and named else f"a {family.model_type}"
    cure = " Save its encoder alone: model.base_model.save_pretrained(FOLDER)." if family.headless else ""
    fail_unless(
        not heads,
        f"path: expected a {family.architecture} or a model without a head, got {got}, whose head for another task, "
        f"{list_names(heads, 2)}, this library does not read.{cure}",
    )


def _shape(x: np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _check_depth(config: Config, stored: Mapping[str, StoredArray]) -> None:
    """Refuse more layers than arrays, before tables of so many layers are made."""
    stacks = (config.encoder, config.decoder) if isinstance(config, EncoderDecoderConfig) else (config,)
    depth = sum(stack.depth for stack in stacks)
    fail_unless(
        depth <= len(stored),
        f"path: expected the arrays of {depth:,} layers, as the config says, got {len(stored):,} arrays in all. Config "
        "and weights belong to different models.",
    )


def _widest(stored: Mapping[str, StoredArray]) -> str:
    """Name of the dtype that holds all stored numbers."""
    dtypes = {x.dtype for x in stored.values()}
    if "float64" in dtypes and not jax.config.jax_enable_x64:
        raise ValueError(
            "param_dtype: expected x64 mode for the float64 arrays of this folder, or another dtype, got None. Call "
            'jax.config.update("jax_enable_x64", True) first, or pass param_dtype="float32".'
        )
    return str(jnp.result_type(*map(jnp.dtype, sorted(dtypes))))


def _other_architecture(fields: Mapping[str, Any], family: Family) -> str:
    """For error messages: the architecture in the config, if it is not the one that is read (a classifier, say)."""
    names = fields.get("architectures") or [family.architecture]
    if family.architecture in names:
        return ""
    return f", a {list_names(names[:1])} by its config where we read {family.architecture}"
