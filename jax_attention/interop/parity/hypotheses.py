"""What may be wrong, as a table. A hypothesis changes the JAX model of one layer; it is the cause if the changed model
agrees with transformers.

A hypothesis does not look at numbers. It yields guesses: what transformers may be doing, what JAX does, and the JAX
model changed to do the same. `diagnose.py` runs them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp

from jax_attention import masks, scores
from jax_attention.core.tree_paths import arrays_by_path, replace_arrays
from jax_attention.interop.parity.jax_run import with_fields
from jax_attention.models import LMConfig, TransformerLM
from jax_attention.models.block import layer_rope
from jax_attention.nn.feed_forward import ACTIVATIONS as ACTIVATION_FUNCTIONS
from jax_attention.positions import Scaling


@dataclass(frozen=True)
class Guess:
    """What transformers may be doing and what JAX does, in words, and the JAX model that does as transformers."""

    hf: str
    jax: str
    model: TransformerLM


@dataclass(frozen=True)
class Hypothesis:
    """A way in which two models may differ. `{hf}` and `{jax}` in the sentence are the words of a guess."""

    name: str
    kinds: tuple[str, ...]
    """Kinds of the points whose difference it may explain."""
    sentence: str
    guesses: Callable[[TransformerLM, str], Iterator[Guess]]
    """Guesses from the JAX model of one layer and the path of the arrays at the point."""


# --- Feed-forward and norms ------------------------------------------------------------------------------------------

ACTIVATIONS = {
    "gelu": "the exact GELU (erf)",
    "gelu_tanh": "the tanh form of GELU",
    "geglu": "the exact GELU (erf) as gate",
    "geglu_tanh": "the tanh form of GELU as gate",
    "swiglu": "SiLU as gate",
    "silu": "SiLU",
    "relu": "ReLU",
    "relu2": "ReLU squared",
}
EPSILONS = (1e-5, 1e-6, 1e-12, 1e-8)
CAPS = (50.0, 30.0)
BASES = (1e4, 1e6, 5e5, 1e5, 1.5e5, 1e7, 500.0)
"""Numbers that published configs use: norm epsilons, Gemma 2's soft caps, rotary bases."""
HEAD = "head"


def _activation(model: TransformerLM, path: str) -> Iterator[Guess]:
    """Other activations, gated if the present one is. In the head it is the activation of the transform."""
    present = model.config.activation
    if path == HEAD and model.head_transform is None:
        return
    for name, words in ACTIVATIONS.items():
        if name != present and ACTIVATION_FUNCTIONS[name][1] == ACTIVATION_FUNCTIONS[present][1]:
            yield Guess(words, ACTIVATIONS[present], with_fields(model, activation=name))


def _epsilon(model: TransformerLM, path: str) -> Iterator[Guess]:
    yield from _other_numbers("norm_epsilon", EPSILONS, model, path)


def _norm_scale(model: TransformerLM, path: str) -> Iterator[Guess]:
    """The scale plus or minus one, as Gemma stores its scales."""
    scale = f"{path}.scale"
    for hf, jax_words, by in (("scale + 1", "the scale", 1.0), ("the scale", "scale + 1", -1.0)):
        yield Guess(hf, jax_words, _with_arrays(model, **{scale: arrays_by_path(model)[scale] + by}))


# --- Attention -------------------------------------------------------------------------------------------------------


def _score_scale(model: TransformerLM, path: str) -> Iterator[Guess]:
    head, width = model.config.resolved_head_size, model.config.width
    scale = getattr(model.config.score, "scale", None)
    scale = head**-0.5 if scale is None else float(scale)
    usual = {"1 / sqrt(H)": head**-0.5, "1": 1.0, "1 / sqrt(D)": width**-0.5, "1 / H": 1 / head}
    words = next((name for name, x in usual.items() if x == scale), f"{scale:.6g}")
    for name, x in usual.items():
        if x != scale:
            yield Guess(name, words, with_fields(model, score=scores.scaled_dot(x)))


def _causality(model: TransformerLM, path: str) -> Iterator[Guess]:
    present = _mask(model.config.mask, model.config.window(0))
    usual = {
        "is causal": masks.causal(),
        "lets every token see the future": None,
        "hides a token from itself": _and(present, masks.causal(-1) | ~masks.causal()),
        "lets a token see the next one": masks.causal(1),
    } | ({} if present is None else {"inverts the mask": ~present})
    words = next((name for name, mask in usual.items() if mask == present), f"has the mask {present!r}")
    for name, mask in usual.items():
        if mask != present:
            yield Guess(name, words, _with_mask(model, mask))


def _window(model: TransformerLM, path: str) -> Iterator[Guess]:
    config, size = model.config, model.config.window(0)
    if size is not None:
        for other in (size - 1, size + 1):
            if other:
                yield Guess(f"{other} keys", f"{size}", _with_mask(model, _mask(config.mask, other)))
        yield Guess("no bound", f"{size} keys", _with_mask(model, _mask(config.mask, None)))


def _mask(mask: Any, window: int | None) -> masks.Mask | None:
    """The mask of a layer with its window; None where every query may attend to every key."""
    return _and(mask, None if window is None else masks.sliding_window(window))


def _and(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else masks.as_mask(one) & other


def _with_mask(model: TransformerLM, mask: Any) -> TransformerLM:
    """The model with another mask in place of its mask and window, and nothing else changed.

    Both choose more than the mask: a layer with a window uses the local rotary embedding, and T5's buckets of positions
    are one-sided if the mask is causal. So the embedding in use and the present buckets are passed explicitly.
    """
    config = model.config
    rope = layer_rope(config, config.window(0)) or config.rope
    position = {"mods": (*model.shared_mods(), *config.mods), "position": "none"} if model.shared_mods() else {}
    return with_fields(model, mask=mask, windows=(None,), rope=rope, local_rope=None, **position)


def _rope(field: str, values: tuple, words: Callable[[Any], str], model: TransformerLM, path: str) -> Iterator[Guess]:
    """Other values of one field of the rotary embedding."""
    rope = layer_rope(model.config, model.config.window(0))
    if rope is not None:
        present = getattr(rope, field)
        for x in values:
            if x != present:
                other = dataclasses.replace(rope, **{field: x})
                yield Guess(words(x), words(present), with_fields(model, rope=other, local_rope=None))


def _style_words(name: str) -> str:
    return {"half": "halves", "interleaved": "neighbouring pairs"}[name]


def _scaling_words(x: Scaling) -> str:
    return "none" if x == Scaling() else repr(x)


# --- Any part --------------------------------------------------------------------------------------------------------


def _number_words(x: float | None) -> str:
    return "none" if x is None else f"{x:g}"


def _other_numbers(field: str, values: tuple, model: TransformerLM, path: str) -> Iterator[Guess]:
    """Other values of one field of the config, which is a number or None."""
    present = getattr(model.config, field)
    for x in values:
        if x != present:
            yield Guess(_number_words(x), _number_words(present), with_fields(model, **{field: x}))


def _embedding_scale(model: TransformerLM, path: str) -> Iterator[Guess]:
    words = {True: "multiplied by sqrt(D)", False: "not scaled"}
    present = model.config.scale_embedding
    yield Guess(words[not present], words[present], with_fields(model, scale_embedding=not present))


def _parallel_residual(model: TransformerLM, path: str) -> Iterator[Guess]:
    words = {"pre": "one after the other", "parallel": "in parallel"}
    present = model.config.norm_place
    for name in words:
        if present in words and name != present:
            yield Guess(words[name], words[present], with_fields(model, norm_place=name))


def _logit_scale(model: TransformerLM, path: str) -> Iterator[Guess]:
    present, width = model.config.logit_scale, model.config.width
    usual = {"1": 1.0, "1 / sqrt(D)": width**-0.5}
    words = next((name for name, x in usual.items() if x == present), f"{present:.6g}")
    for name, x in usual.items():
        if x != present:
            yield Guess(name, words, with_fields(model, logit_scale=x))


def _kernels(config: LMConfig, path: str) -> Iterator[tuple[str, str, slice]]:
    """Every kernel that may be at the point: its name in a sentence, the name of its array, and its columns there."""
    packed, start = f"{path}.projections.joined.kernel", 0
    heads = (config.num_heads, config.resolved_kv_heads, config.resolved_kv_heads)
    for name, count in zip(("query", "key", "value"), heads, strict=True):
        size = count * config.resolved_head_size
        yield name, packed, slice(start, start + size)
        start += size
        yield name, f"{path}.projections.{name}.kernel", slice(None)
    for name in ("out", "gate", "up", "down"):
        yield name, f"{path}.{name}.kernel", slice(None)
    yield "the transform", f"{path}_transform.kernel", slice(None)


def _transposed(model: TransformerLM, path: str) -> Iterator[Guess]:
    """Square kernels, transposed: the others would not fit the other way round."""
    arrays = arrays_by_path(model)
    for name, array, columns in _kernels(model.config, path):
        kernel = arrays.get(array, jnp.zeros(()))
        square = kernel[:, columns] if kernel.ndim else kernel
        if square.ndim == 2 and square.shape[0] == square.shape[1]:
            yield Guess(name, name, _with_arrays(model, **{array: kernel.at[:, columns].set(square.T)}))


def _with_arrays(model: TransformerLM, **arrays: Any) -> TransformerLM:
    return replace_arrays(model, arrays_by_path(model) | arrays, "model: expected the same arrays")


HYPOTHESES = (
    Hypothesis(
        "transposed kernel",
        ("attention", "cross-attention", "feed-forward", "head"),
        "the kernel of {hf} is transposed on one side",
        _transposed,
    ),
    Hypothesis(
        "activation",
        ("feed-forward", "head"),
        "the activation is {hf} in transformers, {jax} in JAX",
        _activation,
    ),
    Hypothesis("norm epsilon", ("norm",), "the epsilon of the norm is {hf} in transformers, {jax} in JAX", _epsilon),
    Hypothesis("norm scale", ("norm",), "the norm multiplies by {hf} in transformers, by {jax} in JAX", _norm_scale),
    Hypothesis(
        "score scale",
        ("attention", "cross-attention"),
        "scores are scaled by {hf} in transformers, by {jax} in JAX",
        _score_scale,
    ),
    Hypothesis("window", ("attention",), "the window has {hf} in transformers, {jax} in JAX", _window),
    Hypothesis("mask", ("attention",), "transformers {hf}, JAX {jax}", _causality),
    Hypothesis(
        "RoPE style",
        ("attention",),
        "RoPE rotates {hf} of the features in transformers, {jax} in JAX",
        partial(_rope, "style", ("half", "interleaved"), _style_words),
    ),
    Hypothesis(
        "RoPE base",
        ("attention",),
        "the rotary base is {hf} in transformers, {jax} in JAX",
        partial(_rope, "base", BASES, "{:g}".format),
    ),
    Hypothesis(
        "RoPE scaling",
        ("attention",),
        "the rotary scaling is {hf} in transformers, {jax} in JAX",
        partial(_rope, "scaling", (Scaling(),), _scaling_words),
    ),
    Hypothesis(
        "score cap",
        ("attention", "cross-attention"),
        "the soft cap on scores is {hf} in transformers, {jax} in JAX",
        partial(_other_numbers, "score_cap", (None, *CAPS)),
    ),
    Hypothesis(
        "logit cap",
        ("head",),
        "the soft cap on logits is {hf} in transformers, {jax} in JAX",
        partial(_other_numbers, "logit_cap", (None, *CAPS)),
    ),
    Hypothesis(
        "logit scale",
        ("head",),
        "the input of the head is multiplied by {hf} in transformers, by {jax} in JAX",
        _logit_scale,
    ),
    Hypothesis(
        "parallel residual",
        ("block",),
        "attention and feed-forward run {hf} in transformers, {jax} in JAX",
        _parallel_residual,
    ),
    Hypothesis(
        "embedding scale",
        ("embedding",),
        "embeddings are {hf} in transformers, {jax} in JAX",
        _embedding_scale,
    ),
)
"""All hypotheses, in the order in which they are tried; the first that explains the difference is the cause."""
