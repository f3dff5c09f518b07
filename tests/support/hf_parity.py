"""Distances between a model of transformers and its JAX model: logits, gradients of every weight, greedy tokens."""

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
from jax_attention.interop.hf.families import DECODERS, ENCODER_DECODERS, ENCODERS, FAMILIES
from jax_attention.interop.weight_mapping import to_torch_arrays
from tests.support import hf_models

NEW = 12
"""New tokens of greedy decoding."""


def relative(actual, expected) -> float:
    """The largest distance over the largest expected number, or over 1."""
    expected = np.asarray(expected)
    return float(np.abs(np.asarray(actual) - expected).max() / max(1.0, np.abs(expected).max()))


class Setting(NamedTuple):
    """One way to call both models: `run_hf` and `run_jax` give logits, and `targets` are the tokens to predict."""

    run_hf: Callable
    run_jax: Callable
    targets: np.ndarray


# Functions of the module are compiled once for all models of one structure; a lambda would compile at each call.


@jax.jit
def logits_of_tokens(model, tokens):
    return model(tokens).logits


@jax.jit
def logits_of_padded_tokens(model, tokens, positions, indices, options):
    """The logits at these indices: those of the tokens that are not padding."""
    return model(tokens, positions=positions, **options).logits[indices]


@jax.jit
def logits_of_encoder_decoder(model, source, target, source_positions):
    return model(source, target, source_positions=source_positions).logits


def setting_of(hf_model) -> Setting:
    """Two rows of tokens; in encoders and encoder-decoders the second row of the source has padding at its end."""
    family, tokens = family_of(hf_model), hf_models.tokens()
    as_torch = torch.from_numpy
    if family in DECODERS:
        return Setting(
            lambda model: model(as_torch(tokens)).logits,
            lambda model: logits_of_tokens(model, tokens),
            hf_models.tokens(seed=1),
        )
    is_token = np.arange(tokens.shape[1]) < np.array([[tokens.shape[1]], [9]])
    positions = np.where(is_token, np.arange(tokens.shape[1]), EMPTY)
    arguments = {"input_ids": as_torch(tokens), "attention_mask": as_torch(is_token.astype(np.int64))}
    if family in ENCODERS:
        hf_types = (
            {} if family.model_type == "distilbert" else {"token_type_ids": as_torch(token_types(hf_model, tokens))}
        )
        jax_types = {} if not hf_types else {"token_types": token_types(hf_model, tokens)}
        return Setting(
            lambda model: model(**arguments, **hf_types).logits[as_torch(is_token)],
            lambda model: logits_of_padded_tokens(model, tokens, positions, np.nonzero(is_token), jax_types),
            hf_models.tokens(seed=1)[is_token],
        )
    target = hf_models.tokens(length=7, seed=2) % 28
    return Setting(
        lambda model: model(**arguments, decoder_input_ids=as_torch(target)).logits,
        lambda model: logits_of_encoder_decoder(model, tokens, target, positions),
        hf_models.tokens(length=7, seed=3) % 28,
    )


def token_types(hf_model, tokens):
    """A type for each token, with every type in use."""
    return np.arange(tokens.size).reshape(tokens.shape) % hf_model.config.type_vocab_size


def forward(hf_model, jax_model) -> float:
    """The relative distance of the logits."""
    setting = setting_of(hf_model)
    with torch.no_grad():
        expected = setting.run_hf(hf_model).numpy()
    return relative(setting.run_jax(jax_model), expected)


def gradients(hf_model, jax_model) -> dict[str, float]:
    """The relative distance of the gradient of the cross-entropy to every weight, by its name in Hugging Face files."""
    setting = setting_of(hf_model)
    logits, targets = setting.run_hf(hf_model), setting.targets
    hf_model.zero_grad()
    flat = logits.reshape(-1, logits.shape[-1])
    torch.nn.functional.cross_entropy(flat, torch.from_numpy(targets).flatten()).backward()

    def loss(model):
        logits = jax.nn.log_softmax(setting.run_jax(model))
        return -jnp.mean(jnp.take_along_axis(logits, targets[..., None], axis=-1))

    jax_gradients = {name: np.asarray(x) for name, x in arrays_by_path(jax.jit(jax.grad(loss))(jax_model)).items()}
    mappings = family_of(hf_model).weight_mappings(jax_model.config)
    # Mappings are affine (Gemma's scales are stored minus one); a gradient goes through their linear part only.
    offset = to_torch_arrays(mappings, {name: np.zeros_like(x) for name, x in jax_gradients.items()})
    actual = {name: x - offset[name] for name, x in to_torch_arrays(mappings, jax_gradients).items()}
    in_files = {"lm_head.weight": "embed_out.weight"} if hf_model.config.model_type == "gpt_neox" else {}
    weights = hf_models.parameters(hf_model)
    assert actual.keys() == {in_files.get(name, name) for name in weights}
    expected = {in_files.get(name, name): x.grad.numpy() for name, x in weights.items() if x.grad is not None}
    assert {in_files.get(name, name) for name in weights} - expected.keys() <= NO_GRADIENT
    return {name: relative(actual[name], expected[name]) for name in expected}


NO_GRADIENT = {"final_logits_bias", "cls.predictions.bias", "lm_head.bias"}
"""A buffer, and the bias that is stored with an untied head and never read."""


def family_of(hf_model):
    return next(family for family in FAMILIES if family.model_type == hf_model.config.model_type)


def greedy(hf_model, jax_model, rows=((5, 6, 7, 8, 9), (11,), (20, 3, 21))) -> tuple[np.ndarray, np.ndarray]:
    """New tokens of a ragged batch with a cache, of JAX and of transformers (with padding): `[rows, NEW]` each, 0 after
    the end.
    """
    length, stop = max(map(len, rows)), hf_model.config.eos_token_id
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    if family_of(hf_model) in ENCODER_DECODERS:
        # The cache of transformers' T5 has one entry per layer of the encoder, too few for a deeper decoder.
        options["use_cache"] = hf_model.config.model_type != "t5"
        padded = torch.tensor([list(row) + [0] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        start = hf_model.config.decoder_start_token_id
        expected = hf_model.generate(padded, attention_mask=mask, **options)[:, 1:].numpy()
        positions = np.where(mask.numpy(), np.arange(length), EMPTY)
        jax_model, rows = jax_model.condition(padded.numpy(), positions=positions), [[start]] * len(rows)
    else:
        padded = torch.tensor([[0] * (length - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        expected = hf_model.generate(padded, attention_mask=mask, **options)[:, length:].numpy()
    generated = decoding.generate(jax_model, [list(row) for row in rows], max_new_tokens=NEW, stop_tokens=stop)
    expected = np.pad(expected, ((0, 0), (0, NEW - expected.shape[1])))
    return np.asarray(generated.tokens), expected
