"""Calls of a user, for the type checker: every line must be understood, and those marked wrong must be refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from typing_extensions import assert_type

import jax_attention as ja
from jax_attention import cache, masks, models, mods, nn, normalizers, scores

x = jnp.ones((2, 5, 8))
heads = jnp.ones((2, 5, 4, 8))
assert_type(ja.attend(x, x, x, mask=masks.causal() & masks.sliding_window(3)), jax.Array)
assert_type(ja.attend_heads(heads, heads, heads, mods=(mods.soft_cap(30.0),)), jax.Array)
