"""Faults for the parity report to find: in one layer of a model of transformers, or in the config of a JAX model."""

from __future__ import annotations

import copy
import dataclasses

import jax
import numpy as np
import torch

from jax_attention import models
from jax_attention.core.tree_paths import arrays_by_path, replace_arrays


def in_hf(model, change):
    """A copy of a model of transformers that a function has changed."""
    faulty = copy.deepcopy(model)
    with torch.no_grad():
        change(faulty)
    return faulty


def in_jax(model, **fields):
    """A JAX model with the same arrays and other fields of its config."""
    config = dataclasses.replace(model.config, **fields)
    return replace_arrays(jax.eval_shape(lambda: models.create(config)), arrays_by_path(model), "model")


def change_mask(attention, change, name="attention_mask"):
    """Change the additive mask `[B, 1, T, T]` that an attention layer gets under this name."""

    def hook(module, args, kwargs):
        return args, kwargs | {name: change(kwargs[name])}

    attention.register_forward_pre_hook(hook, with_kwargs=True)


def additive(mask, allowed):
    """An additive mask for boolean `allowed`, with the number that transformers adds to forbidden scores."""
    return torch.where(allowed, 0.0, mask.min())


def inverted(mask):
    """Allow what was forbidden, and forbid what was allowed."""
    return additive(mask, mask != 0)


def without_itself(mask):
    """Forbid every token to attend to itself."""
    return additive(mask, (mask == 0) & ~torch.eye(mask.shape[-1], dtype=bool))


def causal(mask):
    """Forbid the future."""
    return additive(mask, (mask == 0) & torch.ones_like(mask, dtype=bool).tril())


def without_padding(mask):
    """A causal mask that allows padding."""
    return additive(mask, torch.ones_like(mask, dtype=bool).tril())


def transposed(find):
    """Transpose the weight of the layer that `find(model)` gives."""

    def change(model):
        weight = find(model).weight
        weight.copy_(weight.clone().T)

    return change


def plus(find, number):
    """Add a number to the weight of the layer that `find(model)` gives."""
    return lambda model: find(model).weight.add_(number)


def other_base(attention, base, size):
    """Use another rotary base in one layer, with positions that skip padding."""

    def hook(module, args, kwargs):
        is_token = kwargs["attention_mask"][:, 0, -1, :] == 0
        positions = (is_token.long().cumsum(-1) - 1).clamp(min=0)
        angle = positions[..., None] * base ** (-torch.arange(0, size, 2) / size)
        angle = torch.cat([angle, angle], dim=-1)
        return args, kwargs | {"position_embeddings": (angle.cos(), angle.sin())}

    attention.register_forward_pre_hook(hook, with_kwargs=True)


def neighbours_to_halves(attention, size):
    """Reorder the rows of queries and keys as if a conversion from Meta's layout (neighbouring pairs) had been
    forgotten.
    """
    for name in ("q_proj", "k_proj"):
        weight = getattr(attention, name).weight
        heads = weight.reshape(-1, size, weight.shape[-1])
        weight.copy_(torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1).reshape(weight.shape))


def narrow(model, bits):
    """Round both factors of every linear layer but the head to so many mantissa bits, as TF32 does."""

    def round_mantissa(x):
        mantissa, exponent = np.frexp(x.numpy())
        return torch.from_numpy(np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1))

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.weight.copy_(round_mantissa(module.weight))
            module.register_forward_pre_hook(lambda module, args: (round_mantissa(args[0]),))
