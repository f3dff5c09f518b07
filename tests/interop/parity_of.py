"""How far we are from Hugging Face on one model: logits, gradients of every weight, greedy tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jax_attention import decoding
from jax_attention.interop.entries import to_theirs
from jax_attention.interop.families import FAMILIES
from jax_attention.nn.named import named
from tests.interop import hf_models

NEW = 12


def relative(found, expected) -> float:
    """The largest distance over the largest number, or over 1."""
    expected = np.asarray(expected)
    return float(np.abs(np.asarray(found) - expected).max() / max(1.0, np.abs(expected).max()))


def forward(theirs, ours) -> float:
    """Logits."""
    tokens = hf_models.tokens()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    return relative(jax.jit(lambda model, x: model(x).logits)(ours, tokens), expected)


def gradients(theirs, ours) -> dict[str, float]:
    """Of the cross-entropy, to every weight under the names of their files."""
    tokens, targets = hf_models.tokens(), hf_models.tokens(seed=1)
    logits = theirs(torch.from_numpy(tokens)).logits
    theirs.zero_grad()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten()).backward()

    def loss(model):
        logits = jax.nn.log_softmax(model(tokens).logits)
        return -jnp.mean(jnp.take_along_axis(logits, targets[..., None], axis=-1))

    found = {name: np.asarray(x) for name, x in named(jax.jit(jax.grad(loss))(ours)).items()}
    entries = family_of(theirs).entries(ours.config)
    # Entries are affine (Gemma's scales less one); a gradient only goes through the linear part.
    offset = to_theirs(entries, {name: np.zeros_like(x) for name, x in found.items()})
    found = {name: x - offset[name] for name, x in to_theirs(entries, found).items()}
    old = {"lm_head.weight": "embed_out.weight"} if theirs.config.model_type == "gpt_neox" else {}
    expected = {old.get(name, name): x.grad.numpy() for name, x in theirs.named_parameters()}
    assert found.keys() == expected.keys()
    return {name: relative(found[name], expected[name]) for name in expected}


def family_of(theirs):
    return next(family for family in FAMILIES if family.model_type == theirs.config.model_type)


def greedy(theirs, ours, rows=((5, 6, 7, 8, 9), (11,), (20, 3, 21))) -> tuple[np.ndarray, np.ndarray]:
    """New tokens of a ragged batch with a cache, theirs padded on the left; both `[rows, NEW]`, 0 behind the end."""
    length = max(map(len, rows))
    padded = torch.tensor([[0] * (length - len(row)) + list(row) for row in rows])
    seen = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    stop = theirs.config.eos_token_id
    expected = theirs.generate(padded, attention_mask=seen, max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    expected = expected[:, length:].numpy()
    found = decoding.generate(ours, [list(row) for row in rows], max_new_tokens=NEW, stop_tokens=stop)
    expected = np.pad(expected, ((0, 0), (0, NEW - expected.shape[1])))
    return np.asarray(found.tokens), expected
