"""What may be wrong, as a table: each hypothesis changes our model of one layer, and is right if that explains theirs.

A hypothesis says nothing about numbers. It yields guesses: what theirs would be doing, what ours does, and our model
made to do as theirs. `recognise.py` runs them.
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
from jax_attention.interop.report.ours import changed
from jax_attention.models import LMConfig, TransformerLM
from jax_attention.models.block import layer_rope
from jax_attention.nn.feed_forward import ACTIVATIONS
from jax_attention.positions import Scaling


@dataclass(frozen=True)
class Guess:
    """Theirs does this, ours that; ours changed to do this too."""

    theirs: str
    ours: str
    model: TransformerLM


@dataclass(frozen=True)
class Hypothesis:
    """A way in which two models differ. `{theirs}` and `{ours}` in the sentence are those of the guess."""

    name: str
    kinds: tuple[str, ...]
    """Of the points that it may explain."""
    sentence: str
    guesses: Callable[[TransformerLM, str], Iterator[Guess]]
    """From our model of one layer, and what the names of the arrays at the point begin with."""


# --- Feed-forward and norms ------------------------------------------------------------------------------------------

BENDS = {
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
HEAD = "head"
BASES = (1e4, 1e6, 5e5, 1e5, 1.5e5, 1e7, 500.0)


def _activation(model: TransformerLM, at: str) -> Iterator[Guess]:
    """In the head it is that of the transform in front of the matrix."""
    own = model.config.activation
    if at == HEAD and model.head_transform is None:
        return
    for name, words in BENDS.items():
        if name != own and ACTIVATIONS[name][1] == ACTIVATIONS[own][1]:
            yield Guess(words, BENDS[own], changed(model, activation=name))


def _epsilon(model: TransformerLM, at: str) -> Iterator[Guess]:
    yield from _field("norm_epsilon", EPSILONS, model, at)


def _unit(model: TransformerLM, at: str) -> Iterator[Guess]:
    scale = f"{at}.scale"
    for words, own, by in (("scale + 1", "the scale", 1.0), ("the scale", "scale + 1", -1.0)):
        yield Guess(words, own, _with(model, **{scale: arrays_by_path(model)[scale] + by}))


# --- Attention -------------------------------------------------------------------------------------------------------


def _score_scale(model: TransformerLM, at: str) -> Iterator[Guess]:
    head, width = model.config.resolved_head_size, model.config.width
    own = getattr(model.config.score, "scale", None)
    own = head**-0.5 if own is None else float(own)
    usual = {"1 / sqrt(H)": head**-0.5, "1": 1.0, "1 / sqrt(D)": width**-0.5, "1 / H": 1 / head}
    words = next((name for name, x in usual.items() if x == own), f"{own:.6g}")
    for name, x in usual.items():
        if x != own:
            yield Guess(name, words, changed(model, score=scores.scaled_dot(x)))


def _causality(model: TransformerLM, at: str) -> Iterator[Guess]:
    base = _mask(model.config.mask, model.config.window(0))
    usual = {
        "is causal": masks.causal(),
        "lets every token see the future": None,
        "hides a token from itself": _and(base, masks.causal(-1) | ~masks.causal()),
        "lets a token see the next one": masks.causal(1),
    } | ({} if base is None else {"inverts the mask": ~base})
    words = next((name for name, mask in usual.items() if mask == base), f"has the mask {base!r}")
    for name, mask in usual.items():
        if mask != base:
            yield Guess(name, words, _masked(model, mask))


def _window(model: TransformerLM, at: str) -> Iterator[Guess]:
    config, size = model.config, model.config.window(0)
    if size is not None:
        for other in (size - 1, size + 1):
            if other:
                yield Guess(f"{other} keys", f"{size}", _masked(model, _mask(config.mask, other)))
        yield Guess("no bound", f"{size} keys", _masked(model, _mask(config.mask, None)))


def _mask(mask: Any, window: int | None) -> masks.Mask | None:
    """What a layer may attend to; None is everything."""
    return _and(mask, None if window is None else masks.sliding_window(window))


def _and(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else masks.as_mask(one) & other


def _masked(model: TransformerLM, mask: Any) -> TransformerLM:
    """Another mask in place of the layer's own and its window; its rotary embedding stays, and so do the buckets of
    T5's table, which go by the mask otherwise.
    """
    config = model.config
    turn = layer_rope(config, config.window(0)) or config.rope
    place = {"mods": (*model.shared_mods(), *config.mods), "position": "none"} if model.shared_mods() else {}
    return changed(model, mask=mask, windows=(None,), rope=turn, local_rope=None, **place)


def _rope(field: str, values: tuple, words: Callable[[Any], str], model: TransformerLM, at: str) -> Iterator[Guess]:
    own = layer_rope(model.config, model.config.window(0))
    if own is not None:
        for x in values:
            if x != getattr(own, field):
                turn = dataclasses.replace(own, **{field: x})
                made = changed(model, rope=turn, local_rope=None)
                yield Guess(words(x), words(getattr(own, field)), made)


def _style(name: str) -> str:
    return {"half": "halves", "interleaved": "neighbouring pairs"}[name]


def _scaled(x: Scaling) -> str:
    return "none" if x == Scaling() else repr(x)


# --- Any part --------------------------------------------------------------------------------------------------------


def _field(field: str, values: tuple, model: TransformerLM, at: str) -> Iterator[Guess]:
    """Another number, or none, in one field of the config."""
    own = getattr(model.config, field)
    show = lambda x: "none" if x is None else f"{x:g}"  # noqa: E731
    for x in values:
        if x != own:
            yield Guess(show(x), show(own), changed(model, **{field: x}))


def _embedding_scale(model: TransformerLM, at: str) -> Iterator[Guess]:
    words = {True: "times sqrt(D)", False: "as they are"}
    own = model.config.scale_embedding
    yield Guess(words[not own], words[own], changed(model, scale_embedding=not own))


def _halves(model: TransformerLM, at: str) -> Iterator[Guess]:
    words = {"pre": "one after the other", "parallel": "beside each other"}
    own = model.config.norm_place
    for name in words:
        if own in words and name != own:
            yield Guess(words[name], words[own], changed(model, norm_place=name))


def _logit_scale(model: TransformerLM, at: str) -> Iterator[Guess]:
    own, width = model.config.logit_scale, model.config.width
    usual = {"1": 1.0, "1 / sqrt(D)": width**-0.5}
    words = next((name for name, x in usual.items() if x == own), f"{own:.6g}")
    for name, x in usual.items():
        if x != own:
            yield Guess(name, words, changed(model, logit_scale=x))


def _kernels(config: LMConfig, at: str) -> Iterator[tuple[str, str, slice]]:
    """Name for people, name of the array, and its columns, of every kernel that may be at the point."""
    joined, start = f"{at}.projections.joined.kernel", 0
    heads = (config.num_heads, config.resolved_kv_heads, config.resolved_kv_heads)
    for name, count in zip(("query", "key", "value"), heads, strict=True):
        size = count * config.resolved_head_size
        yield name, joined, slice(start, start + size)
        start += size
        yield name, f"{at}.projections.{name}.kernel", slice(None)
    for name in ("out", "gate", "up", "down"):
        yield name, f"{at}.{name}.kernel", slice(None)
    yield "the transform", f"{at}_transform.kernel", slice(None)


def _transposed(model: TransformerLM, at: str) -> Iterator[Guess]:
    arrays = arrays_by_path(model)
    for name, array, columns in _kernels(model.config, at):
        kernel = arrays.get(array, jnp.zeros(()))
        part = kernel[:, columns] if kernel.ndim else kernel
        if part.ndim == 2 and part.shape[0] == part.shape[1]:
            yield Guess(name, name, _with(model, **{array: kernel.at[:, columns].set(part.T)}))


def _with(model: TransformerLM, **arrays: Any) -> TransformerLM:
    return replace_arrays(model, arrays_by_path(model) | arrays, "model: expected the same arrays")


HYPOTHESES = (
    Hypothesis(
        "transposed kernel",
        ("attention", "cross-attention", "feed-forward", "head"),
        "the kernel of {theirs} is transposed on one side",
        _transposed,
    ),
    Hypothesis("activation", ("feed-forward", "head"), "theirs bends by {theirs}, ours by {ours}", _activation),
    Hypothesis("norm epsilon", ("norm",), "the epsilon of the norm is {theirs} in theirs, {ours} in ours", _epsilon),
    Hypothesis("norm scale", ("norm",), "theirs multiplies by {theirs} of the norm, ours by {ours}", _unit),
    Hypothesis(
        "score scale",
        ("attention", "cross-attention"),
        "theirs scales scores by {theirs}, ours by {ours}",
        _score_scale,
    ),
    Hypothesis("window", ("attention",), "the window of theirs has {theirs}, that of ours {ours}", _window),
    Hypothesis("mask", ("attention",), "theirs {theirs}, ours {ours}", _causality),
    Hypothesis(
        "RoPE style",
        ("attention",),
        "theirs turns {theirs} of the features, ours {ours}",
        partial(_rope, "style", ("half", "interleaved"), _style),
    ),
    Hypothesis(
        "RoPE base",
        ("attention",),
        "the rotary base of theirs is {theirs}, that of ours {ours}",
        partial(_rope, "base", BASES, "{:g}".format),
    ),
    Hypothesis(
        "RoPE scaling",
        ("attention",),
        "the rotary scaling of theirs is {theirs}, that of ours {ours}",
        partial(_rope, "scaling", (Scaling(),), _scaled),
    ),
    Hypothesis(
        "score cap",
        ("attention", "cross-attention"),
        "the soft cap on scores is {theirs} in theirs, {ours} in ours",
        partial(_field, "score_cap", (None, *CAPS)),
    ),
    Hypothesis(
        "logit cap",
        ("head",),
        "the soft cap on logits is {theirs} in theirs, {ours} in ours",
        partial(_field, "logit_cap", (None, *CAPS)),
    ),
    Hypothesis(
        "logit scale", ("head",), "theirs multiplies what the head reads by {theirs}, ours by {ours}", _logit_scale
    ),
    Hypothesis("halves", ("block",), "theirs has its halves {theirs}, ours {ours}", _halves),
    Hypothesis("embedding scale", ("embedding",), "theirs takes embeddings {theirs}, ours {ours}", _embedding_scale),
)
"""In this order they are tried; the first that explains the difference is taken."""
