"""Speed of generation compared with Hugging Face, with generation without a cache, and over the length of the cache.

    python -m benchmarks.decode        about 5 minutes on 2 idle cores; writes benchmarks/results/decode.json

GPT-2 small (124 million parameters) and a Llama of 16 layers, width 1024, 16 query heads and 4 key/value heads (246
million), random parameters, float32, greedy. The JAX models are loaded from the folders of the Hugging Face models.
Every round times each competitor once, in turn, so that noise of the machine affects all alike; compilation is not
counted. The time to read the prompt is that of a call for one token; the time of a further token is the rest of a call
for many, per token. Hugging Face runs PyTorch eagerly with its cache; no token stops a row early. Results are ratios of
medians.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads of torch would spin on cores on which JAX is timed
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from jax_attention import decoding, interop, models

THREADS = 2
PROMPT = 32
NEW = 64
"""New tokens with a cache; also the room for new tokens without one."""
HF_BATCHES, HF_PROMPT, HF_NEW = (1, 4), 128, 33
"""Batch sizes, prompt tokens and new tokens of the comparison with Hugging Face."""
RECOMPUTED = 8
"""New tokens per round without a cache; few, because each costs a whole pass."""
LENGTHS = (32, 256, 512, 900)
"""Prompt lengths for the cost of a token over the length of the cache."""
ROUNDS = 3
RESULTS = Path(__file__).parent / "results" / "decode.json"


def prompt(batch: int, length: int, vocab_size: int) -> np.ndarray:
    """Random token ids `[B, T]`."""
    return np.random.default_rng(length).integers(0, vocab_size, (batch, length), dtype=np.int32)


def medians(competitors: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each competitor, timed in turn after one uncounted call."""
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for turn in range(rounds + 1):
        for name, run in competitors.items():
            start = time.perf_counter()
            run()
            if turn:  # the first call compiles
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def jax_generation(model: models.TransformerLM, tokens: np.ndarray, count: int) -> Callable[[], None]:
    """A call of `decoding.generate`, greedy."""
    return lambda: jax.block_until_ready(decoding.generate(model, tokens, max_new_tokens=count).tokens)


def hf_generation(model: torch.nn.Module, tokens: np.ndarray, count: int) -> Callable[[], None]:
    """A call of `generate` of transformers, greedy, with its cache."""
    ids = torch.tensor(tokens, dtype=torch.long)
    options = dict(attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True, pad_token_id=0)

    def run() -> None:
        with torch.no_grad():
            out = model.generate(ids, max_new_tokens=count, eos_token_id=None, **options)
        assert out.shape[-1] == ids.shape[-1] + count

    return run


@jax.jit
def next_token(model: models.TransformerLM, tokens: jax.Array, last: jax.Array) -> jax.Array:
    """One token from a full pass over all of `tokens [T]`; only row `last` goes through the head."""
    hidden, _ = model.hidden(tokens)
    return jnp.argmax(model.unembed(hidden[last]))


def generation_without_cache(model: models.TransformerLM, tokens: np.ndarray, count: int) -> Callable[[], None]:
    """Generation without a cache: every token costs a pass over the sequence, padded to its final length."""

    def run() -> None:
        row = np.zeros(PROMPT + NEW, np.int32)
        row[:PROMPT] = tokens[0]
        for i in range(PROMPT, PROMPT + count):
            row[i] = next_token(model, row, np.int32(i - 1))

    return run


def make_hf_models() -> dict[str, Any]:
    """The Hugging Face models, by name."""
    llama = {
        "vocab_size": 32000,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
    }
    return {
        "GPT-2 small": transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval(),
        "Llama, 16 layers": transformers.LlamaForCausalLM(transformers.LlamaConfig(**llama)).eval(),
    }


def load_jax_model(hf_model: Any) -> models.TransformerLM:
    """The JAX model with the parameters of a Hugging Face model."""
    with tempfile.TemporaryDirectory() as folder:
        hf_model.save_pretrained(folder)
        return interop.load(folder)


def compare_with_hf(name: str, model: models.TransformerLM, hf_model: Any, batch: int) -> dict:
    """Milliseconds of both to read a prompt and for each further token of the batch."""
    tokens = prompt(batch, HF_PROMPT, model.config.vocab_size)
    runs = {
        (competitor, count): make(competitor_model, tokens, count)
        for competitor, make, competitor_model in (
            ("jax_attention", jax_generation, model),
            ("huggingface", hf_generation, hf_model),
        )
        for count in (1, HF_NEW)
    }
    seconds = medians(runs, ROUNDS)
    names = ("jax_attention", "huggingface")
    read = {competitor: seconds[competitor, 1] * 1e3 for competitor in names}
    further = {
        competitor: (seconds[competitor, HF_NEW] - seconds[competitor, 1]) / (HF_NEW - 1) * 1e3 for competitor in names
    }
    row = {
        "model": name,
        "batch": batch,
        "prompt and first token (ms)": {competitor: round(x, 1) for competitor, x in read.items()},
        "each further token (ms)": {competitor: round(x, 1) for competitor, x in further.items()},
        "ratio of reading": round(read["huggingface"] / read["jax_attention"], 2),
        "ratio of writing": round(further["huggingface"] / further["jax_attention"], 2),
    }
    print(row)
    return row


def compare_with_recomputing(model: models.TransformerLM) -> dict:
    """Milliseconds per token with and without a cache."""
    tokens = prompt(1, PROMPT, model.config.vocab_size)
    counts = {"cached": NEW, "recomputed": RECOMPUTED}
    runs = {
        "cached": jax_generation(model, tokens, NEW),
        "recomputed": generation_without_cache(model, tokens, RECOMPUTED),
    }
    ms = {name: 1e3 * s / counts[name] for name, s in medians(runs, ROUNDS).items()}
    row = {
        "ms per token": {name: round(x, 1) for name, x in ms.items()},
        "ratio": round(ms["recomputed"] / ms["cached"], 2),
    }
    print(row)
    return row


def measure_lengths(model: models.TransformerLM) -> list[dict]:
    """Milliseconds per further token after prompts of several lengths: from calls for 33 tokens and for 1."""
    runs = {}
    for length in LENGTHS:
        tokens = prompt(1, length, model.config.vocab_size)
        runs |= {(length, count): jax_generation(model, tokens, count) for count in (1, 33)}
    seconds = medians(runs, ROUNDS)
    rows = [
        {
            "prompt": length,
            "prompt and first token (ms)": round(1e3 * seconds[length, 1], 1),
            "each further token (ms)": round(1e3 * (seconds[length, 33] - seconds[length, 1]) / 32, 1),
        }
        for length in LENGTHS
    ]
    for row in rows:
        print(row)
    return rows


def main() -> None:
    """Measure, print and write the results."""
    torch.set_num_threads(THREADS)
    hf_models = make_hf_models()
    jax_models = {name: load_jax_model(hf_model) for name, hf_model in hf_models.items()}
    model = jax_models["GPT-2 small"]
    versions = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    setting = {"parameters": "random", "dtype": "float32", "rounds": ROUNDS}
    setting |= {"prompt, compared with Hugging Face": HF_PROMPT, "new tokens": HF_NEW, "prompt elsewhere": PROMPT}
    device = {"machine": platform.machine(), "device": jax.devices()[0].device_kind, "threads": THREADS}
    load = [round(os.getloadavg()[0], 1)]
    result = {
        "against Hugging Face": [
            compare_with_hf(name, jax_models[name], hf_model, batch)
            for name, hf_model in hf_models.items()
            for batch in HF_BATCHES
        ],
        "cached against recomputed, batch 1": compare_with_recomputing(model),
        "time against length, batch 1": measure_lengths(model),
    }
    load.append(round(os.getloadavg()[0], 1))
    RESULTS.parent.mkdir(exist_ok=True)
    contents = {"setting": setting, "versions": versions, **device, "load before and after": load, **result}
    RESULTS.write_text(json.dumps(contents, indent=1) + "\n")


if __name__ == "__main__":
    main()
