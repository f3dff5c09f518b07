"""Differences from PyTorch and Hugging Face, of every family and every layer: forward, gradients, tokens, bfloat16.

    python -m benchmarks.parity        about 10 minutes on 2 cores; writes results/parity.json

Models are tiny, random and of odd sizes; models, layers and measures are those of the tests of interop. A difference
is over the largest number of the array, or over 1; `gradient` is the worst of all weights; `tokens` counts the equal
ones of the new tokens of a ragged batch. `bfloat16` has the errors of both sides in bfloat16 against PyTorch in
float32 with the same numbers. Of a layer, the worst of all options.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import torch
import transformers

from benchmarks.attention import setting
from jax_attention import interop
from tests.interop import test_torch_layers, test_torch_recurrent, test_torch_transformers
from tests.support import hf_models, hf_parity

RESULTS = Path(__file__).parent / "results" / "parity.json"


def model_parity(name: str) -> dict[str, Any]:
    """Differences of one model."""
    hf_model = hf_models.build(name)
    with tempfile.TemporaryDirectory() as folder:
        hf_model.save_pretrained(folder)
        jax_model = interop.load(folder)
    results = {
        "family": hf_model.config.model_type,
        "forward": hf_parity.forward(hf_model, jax_model),
        "gradient": max(hf_parity.gradients(hf_model, jax_model).values()),
        "bfloat16": bfloat16_errors(name),
    }
    if hf_parity.family_of(hf_model) in hf_parity.ENCODERS:
        return results
    jax_tokens, hf_tokens = hf_parity.greedy(hf_model, jax_model)
    return results | {"tokens": [int((jax_tokens == hf_tokens).sum()), jax_tokens.size]}


def bfloat16_errors(name: str) -> dict[str, float]:
    """Errors of logits in bfloat16 on both sides, against PyTorch in float32 with the same numbers."""
    hf_model = hf_models.build(name, torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        hf_model.save_pretrained(folder)
        jax_model = interop.load(folder)
    calls = hf_parity.setting_of(hf_model)
    with torch.no_grad():
        hf_logits = calls.run_hf(hf_model).float().numpy()
        exact = calls.run_hf(hf_model.float()).numpy()
    jax_logits = jax.jit(calls.run_jax)(jax_model)
    return {"jax": hf_parity.relative(jax_logits, exact), "hf": hf_parity.relative(hf_logits, exact)}


LAYERS: dict[str, tuple[Callable[..., tuple[float, float]], Iterable[Any]]] = {
    "Linear, LayerNorm, RMSNorm": (test_torch_layers.check_layer, test_torch_layers.LAYERS),
    "MultiheadAttention": (test_torch_layers.check_heads, test_torch_layers.HEADS),
} | {
    kind: (lambda options, dtype, kind=kind: test_torch_recurrent.check(kind, options, dtype), options)
    for kind, options in ((kind, test_torch_recurrent.OPTIONS.values()) for kind in test_torch_recurrent.KINDS)
}
LAYERS |= {
    name: (
        lambda options, dtype, name=name: test_torch_transformers.check(name, dtype, **options),
        test_torch_transformers.OPTIONS.values(),
    )
    for name in test_torch_transformers.MODULES
}
"""Function that checks a layer with some options in a dtype, and the options."""


def layer_parity(name: str) -> dict[str, list[float]]:
    """The worst outputs and gradients of one layer, in each dtype."""
    check, options = LAYERS[name]
    worst_of_dtype = {}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            worst_of_dtype[dtype] = [max(worst) for worst in zip(*(check(x, dtype) for x in options), strict=True)]
    return worst_of_dtype


def main() -> None:
    """Measure every layer and every model, and write the results."""
    transformers.utils.logging.disable_progress_bar()
    results = setting("jax", "flax", "torch", "transformers", "safetensors")
    results["layers"] = {name: layer_parity(name) for name in LAYERS}
    every = hf_models.CASES | hf_models.ENCODERS | hf_models.ENCODER_DECODERS
    results["models"] = {name: model_parity(name) for name in every}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
