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
from tests.interop import hf_models, parity_of, test_torch_modules, test_torch_recurrent, test_torch_transformers

RESULTS = Path(__file__).parent / "results" / "parity.json"


def model_parity(name: str) -> dict[str, Any]:
    """Differences between one model family in JAX and in Hugging Face."""
    hf_model = hf_models.build(name)
    with tempfile.TemporaryDirectory() as folder:
        hf_model.save_pretrained(folder)
        jax_model = interop.load(folder)
    result = {
        "family": hf_model.config.model_type,
        "forward": parity_of.forward(hf_model, jax_model),
        "gradient": max(parity_of.gradients(hf_model, jax_model).values()),
        "half": bfloat16_errors(name),
    }
    if parity_of.family_of(hf_model) in parity_of.ENCODERS:
        return result
    tokens, expected = parity_of.greedy(hf_model, jax_model)
    return result | {"tokens": [int((tokens == expected).sum()), tokens.size]}


def bfloat16_errors(name: str) -> dict[str, float]:
    """Errors of both sides in bfloat16, against the Hugging Face model in float32 with the same parameters."""
    hf_model = hf_models.build(name, torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        hf_model.save_pretrained(folder)
        jax_model = interop.load(folder)
    model_setting = parity_of.setting_of(hf_model)
    with torch.no_grad():
        hf_output = model_setting.theirs(hf_model).float().numpy()
        exact = model_setting.theirs(hf_model.float()).numpy()
    jax_output = jax.jit(model_setting.ours)(jax_model)
    return {"jax": parity_of.relative(jax_output, exact), "hf": parity_of.relative(hf_output, exact)}


LAYERS: dict[str, tuple[Callable[..., tuple[float, float]], Iterable[Any]]] = {
    "Linear, LayerNorm, RMSNorm": (test_torch_modules.check_layer, test_torch_modules.LAYERS),
    "MultiheadAttention": (test_torch_modules.check_heads, test_torch_modules.HEADS),
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
    every = hf_models.CASES | hf_models.ENCODERS | hf_models.PAIRS
    results["models"] = {name: model_parity(name) for name in every}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
