"""How far are we from PyTorch and Hugging Face? Every family and every layer: forward, gradients, tokens, dtypes.

    python -m benchmarks.parity        about 10 minutes on 2 cores; writes results/parity.json

Models are tiny, random and of odd sizes; models, layers and measures are those of tests/interop: differences over the
largest number of the array, or over 1; `gradient` is the worst of all weights; `tokens` says how many of the new tokens
of a ragged batch are equal. In bfloat16 the truth is their model in float32 with the same numbers, and both sides have
an error. Of layers, the worst of all options.
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
    """One model."""
    theirs = hf_models.build(name)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = interop.load(folder)
    found = {
        "family": theirs.config.model_type,
        "forward": hf_parity.forward(theirs, ours),
        "gradient": max(hf_parity.gradients(theirs, ours).values()),
        "half": half(name),
    }
    if hf_parity.family_of(theirs) in hf_parity.ENCODERS:
        return found
    tokens, expected = hf_parity.greedy(theirs, ours)
    return found | {"tokens": [int((tokens == expected).sum()), tokens.size]}


def half(name: str) -> dict[str, float]:
    """Errors in bfloat16, ours and theirs, against float32 with the same numbers."""
    theirs = hf_models.build(name, torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = interop.load(folder)
    setting_of_it = hf_parity.setting_of(theirs)
    with torch.no_grad():
        own = setting_of_it.theirs(theirs).float().numpy()
        truth = setting_of_it.theirs(theirs.float()).numpy()
    found = jax.jit(setting_of_it.ours)(ours)
    return {"ours": hf_parity.relative(found, truth), "theirs": hf_parity.relative(own, truth)}


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
"""What checks a layer with some options in a dtype, and the options."""


def layer_parity(name: str) -> dict[str, list[float]]:
    """The worst outputs and gradients of one layer, in each dtype."""
    check, options = LAYERS[name]
    found = {}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            found[dtype] = [max(worst) for worst in zip(*(check(x, dtype) for x in options), strict=True)]
    return found


def main() -> None:
    """Measure, write."""
    transformers.utils.logging.disable_progress_bar()
    results = setting("jax", "flax", "torch", "transformers", "safetensors")
    results["layers"] = {name: layer_parity(name) for name in LAYERS}
    every = hf_models.CASES | hf_models.ENCODERS | hf_models.PAIRS
    results["models"] = {name: model_parity(name) for name in every}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
