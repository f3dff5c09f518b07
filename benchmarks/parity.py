"""Differences from PyTorch and Hugging Face for every family and every layer: forward, gradients, tokens, dtypes.

    python -m benchmarks.parity        about 10 minutes on 2 cores; writes results/parity.json

Models are tiny, random and of odd sizes. Models, layers and error measures are those of tests/interop: differences
divided by the largest entry of the array, or by 1 if that is smaller. `gradient` is the largest difference over all
weights; `tokens` counts the equal ones among the new tokens of a ragged batch. In bfloat16 both sides are compared with
the Hugging Face model in float32 with the same parameters. For layers, the largest difference over all options counts.
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
    """Differences between one model family in JAX and in Hugging Face."""
    hf_model = hf_models.build(name)
    with tempfile.TemporaryDirectory() as folder:
        hf_model.save_pretrained(folder)
        jax_model = interop.load(folder)
    result = {
        "family": hf_model.config.model_type,
        "forward": hf_parity.forward(hf_model, jax_model),
        "gradient": max(hf_parity.gradients(hf_model, jax_model).values()),
        "half": bfloat16_errors(name),
    }
    if hf_parity.family_of(hf_model) in hf_parity.ENCODERS:
        return result
    tokens, expected = hf_parity.greedy(hf_model, jax_model)
    return result | {"tokens": [int((tokens == expected).sum()), tokens.size]}


def bfloat16_errors(name: str) -> dict[str, float]:
    """Errors of both sides in bfloat16, against the Hugging Face model in float32 with the same parameters."""
    hf_model = hf_models.build(name, torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        hf_model.save_pretrained(folder)
        jax_model = interop.load(folder)
    model_setting = hf_parity.setting_of(hf_model)
    with torch.no_grad():
        hf_output = model_setting.run_hf(hf_model).float().numpy()
        exact = model_setting.run_hf(hf_model.float()).numpy()
    jax_output = jax.jit(model_setting.run_jax)(jax_model)
    return {"jax": hf_parity.relative(jax_output, exact), "hf": hf_parity.relative(hf_output, exact)}


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
"""For each layer a function from (options, dtype) to its differences, and the options to try."""


def layer_parity(name: str) -> dict[str, list[float]]:
    """The largest differences of outputs and gradients of one layer over its options, in each dtype."""
    check, options = LAYERS[name]
    worst_by_dtype = {}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            worst_by_dtype[dtype] = [max(x) for x in zip(*(check(y, dtype) for y in options), strict=True)]
    return worst_by_dtype


def main() -> None:
    """Measure all layers and models and write the results."""
    transformers.utils.logging.disable_progress_bar()
    results = setting("jax", "flax", "torch", "transformers", "safetensors")
    results["layers"] = {name: layer_parity(name) for name in LAYERS}
    every = hf_models.CASES | hf_models.ENCODERS | hf_models.ENCODER_DECODERS
    results["models"] = {name: model_parity(name) for name in every}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
