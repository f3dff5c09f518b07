"""Faults to plant in models of transformers, each in one layer, and in configs of ours."""

from __future__ import annotations

import copy
import dataclasses

import jax
import numpy as np
import torch

from jax_attention import models
from jax_attention.core.tree_paths import arrays_by_path, replace_arrays


def in_theirs(model, plant):
    """A copy with the fault."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        plant(copied)
    return copied


def in_ours(model, **fields):
    """The same arrays under another config."""
    config = dataclasses.replace(model.config, **fields)
    return replace_arrays(jax.eval_shape(lambda: models.create(config)), arrays_by_path(model), "model")


def remasked(attention, change, name="attention_mask"):
    """The additive mask `[B, 1, T, T]` that a layer gets by this name, changed."""

    def hook(module, args, kwargs):
        return args, kwargs | {name: change(kwargs[name])}

    attention.register_forward_pre_hook(hook, with_kwargs=True)


def additive(mask, allowed):
    """What their mask adds to forbidden scores, elsewhere."""
    return torch.where(allowed, 0.0, mask.min())


def inverted(mask):
    return additive(mask, mask != 0)


def without_itself(mask):
    return additive(mask, (mask == 0) & ~torch.eye(mask.shape[-1], dtype=bool))


def causal(mask):
    return additive(mask, (mask == 0) & torch.ones_like(mask, dtype=bool).tril())


def without_padding(mask):
    return additive(mask, torch.ones_like(mask, dtype=bool).tril())


def transposed(find):
    def plant(model):
        weight = find(model).weight
        weight.copy_(weight.clone().T)

    return plant


def plus(find, number):
    return lambda model: find(model).weight.add_(number)


def other_base(attention, base, size):
    """Another rotary base for one layer; positions as they come."""

    def hook(module, args, kwargs):
        seen = kwargs["attention_mask"][:, 0, -1, :] == 0
        places = (seen.long().cumsum(-1) - 1).clamp(min=0)
        angle = places[..., None] * base ** (-torch.arange(0, size, 2) / size)
        angle = torch.cat([angle, angle], dim=-1)
        return args, kwargs | {"position_embeddings": (angle.cos(), angle.sin())}

    attention.register_forward_pre_hook(hook, with_kwargs=True)


def neighbours_to_halves(attention, size):
    """Rows of queries and keys as Meta keeps them, under the rotation of Hugging Face: a conversion gone wrong."""
    for name in ("q_proj", "k_proj"):
        weight = getattr(attention, name).weight
        heads = weight.reshape(-1, size, weight.shape[-1])
        weight.copy_(torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1).reshape(weight.shape))


def narrow(model, bits):
    """Every product of a linear layer from factors with few bits, as TF32 does it."""

    def rounded(x):
        mantissa, exponent = np.frexp(x.numpy())
        return torch.from_numpy(np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1))

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.weight.copy_(rounded(module.weight))
            module.register_forward_pre_hook(lambda module, args: (rounded(args[0]),))
