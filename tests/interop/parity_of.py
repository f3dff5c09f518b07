"""How far we are from Hugging Face on one model: logits, gradients of every weight, greedy tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jax_attention import decoding
from jax_attention.cache import EMPTY
from jax_attention.core.tree_paths import arrays_by_path
from jax_attention.interop.entries import to_theirs
from jax_attention.interop.families import DECODERS, ENCODERS, FAMILIES, PAIRS
from tests.interop import hf_models

NEW = 12


def relative(found, expected) -> float:
    """The largest distance over the largest number, or over 1."""
    expected = np.asarray(expected)
    return float(np.abs(np.asarray(found) - expected).max() / max(1.0, np.abs(expected).max()))


class Setting(NamedTuple):
    """One way to call both sides: `theirs(model)` and `ours(model)` are logits, `targets` what they are asked for."""

    theirs: Callable
    ours: Callable
    targets: np.ndarray


# Compiled once for all models of one structure; a new function for each call would be compiled at each call.


@jax.jit
def logits_of_tokens(model, tokens):
    return model(tokens).logits


@jax.jit
def logits_of_padded_tokens(model, tokens, positions, indices, options):
    """The logits at these indices, which are those of the tokens that are not padding."""
    return model(tokens, positions=positions, **options).logits[indices]


@jax.jit
def logits_of_pair(model, source, target, source_positions):
    return model(source, target, source_positions=source_positions).logits


def setting_of(theirs) -> Setting:
    """Two rows of tokens; for encoders and pairs the second row of the source is padded and nobody sees its end."""
    family, tokens = family_of(theirs), hf_models.tokens()
    as_torch = torch.from_numpy
    if family in DECODERS:
        return Setting(
            lambda model: model(as_torch(tokens)).logits,
            lambda model: logits_of_tokens(model, tokens),
            hf_models.tokens(seed=1),
        )
    seen = np.arange(tokens.shape[1]) < np.array([[tokens.shape[1]], [9]])
    places = np.where(seen, np.arange(tokens.shape[1]), EMPTY)
    given = {"input_ids": as_torch(tokens), "attention_mask": as_torch(seen.astype(np.int64))}
    if family in ENCODERS:
        types = {} if family.model_type == "distilbert" else {"token_type_ids": as_torch(kinds_of(theirs, tokens))}
        own = {} if not types else {"token_types": kinds_of(theirs, tokens)}
        return Setting(
            lambda model: model(**given, **types).logits[as_torch(seen)],
            lambda model: logits_of_padded_tokens(model, tokens, places, np.nonzero(seen), own),
            hf_models.tokens(seed=1)[seen],
        )
    target = hf_models.tokens(length=7, seed=2) % 28
    return Setting(
        lambda model: model(**given, decoder_input_ids=as_torch(target)).logits,
        lambda model: logits_of_pair(model, tokens, target, places),
        hf_models.tokens(length=7, seed=3) % 28,
    )


def kinds_of(theirs, tokens):
    """A type for each token, all of them in use."""
    return np.arange(tokens.size).reshape(tokens.shape) % theirs.config.type_vocab_size


def forward(theirs, ours) -> float:
    """Logits."""
    setting = setting_of(theirs)
    with torch.no_grad():
        expected = setting.theirs(theirs).numpy()
    return relative(setting.ours(ours), expected)


def gradients(theirs, ours) -> dict[str, float]:
    """Of the cross-entropy, to every weight under the names of their files."""
    setting = setting_of(theirs)
    logits, targets = setting.theirs(theirs), setting.targets
    theirs.zero_grad()
    flat = logits.reshape(-1, logits.shape[-1])
    torch.nn.functional.cross_entropy(flat, torch.from_numpy(targets).flatten()).backward()

    def loss(model):
        logits = jax.nn.log_softmax(setting.ours(model))
        return -jnp.mean(jnp.take_along_axis(logits, targets[..., None], axis=-1))

    found = {name: np.asarray(x) for name, x in arrays_by_path(jax.jit(jax.grad(loss))(ours)).items()}
    entries = family_of(theirs).entries(ours.config)
    # Entries are affine (Gemma's scales less one); a gradient only goes through the linear part.
    offset = to_theirs(entries, {name: np.zeros_like(x) for name, x in found.items()})
    found = {name: x - offset[name] for name, x in to_theirs(entries, found).items()}
    old = {"lm_head.weight": "embed_out.weight"} if theirs.config.model_type == "gpt_neox" else {}
    weights = hf_models.numbers(theirs)
    assert found.keys() == {old.get(name, name) for name in weights}
    expected = {old.get(name, name): x.grad.numpy() for name, x in weights.items() if x.grad is not None}
    assert {old.get(name, name) for name in weights} - expected.keys() <= NO_GRADIENT
    return {name: relative(found[name], expected[name]) for name in expected}


NO_GRADIENT = {"final_logits_bias", "cls.predictions.bias", "lm_head.bias"}
"""A buffer, and the bias beside an untied head, which nobody reads."""


def family_of(theirs):
    return next(family for family in FAMILIES if family.model_type == theirs.config.model_type)


def greedy(theirs, ours, rows=((5, 6, 7, 8, 9), (11,), (20, 3, 21))) -> tuple[np.ndarray, np.ndarray]:
    """New tokens of a ragged batch with a cache, theirs padded; both `[rows, NEW]`, 0 behind the end."""
    length, stop = max(map(len, rows)), theirs.config.eos_token_id
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    if family_of(theirs) in PAIRS:
        # Their cache of T5 has one entry for each layer of the encoder, too few for a deeper decoder.
        options["use_cache"] = theirs.config.model_type != "t5"
        padded = torch.tensor([list(row) + [0] * (length - len(row)) for row in rows])
        seen = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        start = theirs.config.decoder_start_token_id
        expected = theirs.generate(padded, attention_mask=seen, **options)[:, 1:].numpy()
        places = np.where(seen.numpy(), np.arange(length), EMPTY)
        ours, rows = ours.condition(padded.numpy(), positions=places), [[start]] * len(rows)
    else:
        padded = torch.tensor([[0] * (length - len(row)) + list(row) for row in rows])
        seen = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        expected = theirs.generate(padded, attention_mask=seen, **options)[:, length:].numpy()
    found = decoding.generate(ours, [list(row) for row in rows], max_new_tokens=NEW, stop_tokens=stop)
    expected = np.pad(expected, ((0, 0), (0, NEW - expected.shape[1])))
    return np.asarray(found.tokens), expected
