"""How far are we from Hugging Face? Every family, tiny random models of odd sizes: logits, gradients, greedy tokens.

    python -m benchmarks.parity        about 4 minutes on 2 cores; writes results/parity.json

The models and the measure are those of tests/interop: differences over the largest number of the array, or over 1;
`gradient` is the worst of all weights; `tokens` says how many of the new tokens of a ragged batch are equal.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import transformers

from benchmarks.attention import setting
from jax_attention import interop
from tests.interop import hf_models, parity_of

RESULTS = Path(__file__).parent / "results" / "parity.json"


def measured(name: str) -> dict:
    """One model."""
    theirs = hf_models.build(name)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = interop.load(folder)
    found, expected = parity_of.greedy(theirs, ours)
    return {
        "family": theirs.config.model_type,
        "forward": parity_of.forward(theirs, ours),
        "gradient": max(parity_of.gradients(theirs, ours).values()),
        "tokens": [int((found == expected).sum()), found.size],
    }


def main() -> None:
    """Measure, write."""
    transformers.utils.logging.disable_progress_bar()
    models = {name: measured(name) for name in hf_models.CASES}
    results = setting("jax", "flax", "torch", "transformers", "safetensors") | {"models": models}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
