"""How fast is generation beside Hugging Face, beside no cache, and as the cache grows? Ratios of medians, one run.

    python -m benchmarks.decode        about 5 minutes on 2 idle cores; writes benchmarks/results/decode.json

GPT-2 small (124 million parameters) and a Llama of 16 layers, width 1024, 16 heads over 4 (246 million), random,
float32, greedy. Ours are loaded from the folders of theirs. Every round times each competitor once, in turn, so that
noise of the machine falls on all of them alike; compiling is not counted. Reading the prompt is timed by a call for one
token, a further token by the rest of a call for many. Hugging Face runs PyTorch eagerly with its own cache; no token
stops a row early.
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

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch's idle threads would spin on cores that others time on
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
"""New tokens without and with a cache."""
BATCHES, READ, WRITTEN = (1, 4), 128, 33
"""Beside Hugging Face: batch sizes, tokens of the prompt, new tokens."""
RECOMPUTED = 8
"""New tokens per round without a cache: each costs a whole pass."""
LENGTHS = (32, 256, 512, 900)
"""Prompt lengths for the cost of a token against what the cache holds."""
ROUNDS = 3
RESULTS = Path(__file__).parent / "results" / "decode.json"


def prompt(batch: int, length: int, vocab_size: int) -> np.ndarray:
    """Random token ids `[B, T]`."""
    return np.random.default_rng(length).integers(0, vocab_size, (batch, length), dtype=np.int32)


def medians(competitors: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each, measured in turn, after one call that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for lap in range(rounds + 1):
        for name, run in competitors.items():
            start = time.perf_counter()
            run()
            if lap:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def ours(model: models.TransformerLM, tokens: np.ndarray, count: int) -> Callable[[], None]:
    """`decoding.generate`, greedy."""
    return lambda: jax.block_until_ready(decoding.generate(model, tokens, max_new_tokens=count).tokens)


def huggingface(model: torch.nn.Module, tokens: np.ndarray, count: int) -> Callable[[], None]:
    """`transformers`' `generate`, greedy, with its cache."""
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


def recomputed(model: models.TransformerLM, tokens: np.ndarray, count: int) -> Callable[[], None]:
    """No cache: the sequence, in an array of the final length, passes through the model for every token."""

    def run() -> None:
        row = np.zeros(PROMPT + NEW, np.int32)
        row[:PROMPT] = tokens[0]
        for i in range(PROMPT, PROMPT + count):
            row[i] = next_token(model, row, np.int32(i - 1))

    return run


def peers() -> dict[str, Any]:
    """Models of Hugging Face."""
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


def loaded(peer: Any) -> models.TransformerLM:
    """Ours with the same numbers."""
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        return interop.load(folder)


def against_huggingface(name: str, model: models.TransformerLM, peer: Any, batch: int) -> dict:
    """Milliseconds of both: to read a prompt, and for each further token of the batch."""
    tokens = prompt(batch, READ, model.config.vocab_size)
    runs = {
        (who, count): make(whose, tokens, count)
        for who, make, whose in (("jax_attention", ours, model), ("huggingface", huggingface, peer))
        for count in (1, WRITTEN)
    }
    seconds = medians(runs, ROUNDS)
    names = ("jax_attention", "huggingface")
    read = {who: seconds[who, 1] * 1e3 for who in names}
    further = {who: (seconds[who, WRITTEN] - seconds[who, 1]) / (WRITTEN - 1) * 1e3 for who in names}
    row = {
        "model": name,
        "batch": batch,
        "prompt and first token (ms)": {who: round(x, 1) for who, x in read.items()},
        "each further token (ms)": {who: round(x, 1) for who, x in further.items()},
        "ratio of reading": round(read["huggingface"] / read["jax_attention"], 2),
        "ratio of writing": round(further["huggingface"] / further["jax_attention"], 2),
    }
    print(row)
    return row


def against_recomputing(model: models.TransformerLM) -> dict:
    """Milliseconds per token with the cache and without."""
    tokens = prompt(1, PROMPT, model.config.vocab_size)
    counts = {"cached": NEW, "recomputed": RECOMPUTED}
    runs = {"cached": ours(model, tokens, NEW), "recomputed": recomputed(model, tokens, RECOMPUTED)}
    ms = {name: 1e3 * s / counts[name] for name, s in medians(runs, ROUNDS).items()}
    row = {
        "ms per token": {name: round(x, 1) for name, x in ms.items()},
        "ratio": round(ms["recomputed"] / ms["cached"], 2),
    }
    print(row)
    return row


def against_length(model: models.TransformerLM) -> list[dict]:
    """Milliseconds per further token after prompts of several lengths: the difference of 33 tokens and of 1."""
    runs = {}
    for length in LENGTHS:
        tokens = prompt(1, length, model.config.vocab_size)
        runs |= {(length, count): ours(model, tokens, count) for count in (1, 33)}
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
    """Measure, print, and keep."""
    torch.set_num_threads(THREADS)
    theirs = peers()
    own = {name: loaded(peer) for name, peer in theirs.items()}
    model = own["GPT-2 small"]
    versions = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    setting = {"parameters": "random", "dtype": "float32", "rounds": ROUNDS}
    setting |= {"prompt beside Hugging Face": READ, "new tokens": WRITTEN, "prompt elsewhere": PROMPT}
    device = {"machine": platform.machine(), "device": jax.devices()[0].device_kind, "threads": THREADS}
    load = [round(os.getloadavg()[0], 1)]
    result = {
        "against Hugging Face": [
            against_huggingface(name, own[name], peer, batch) for name, peer in theirs.items() for batch in BATCHES
        ],
        "cached against recomputed, batch 1": against_recomputing(model),
        "time against length, batch 1": against_length(model),
    }
    load.append(round(os.getloadavg()[0], 1))
    RESULTS.parent.mkdir(exist_ok=True)
    kept = {"setting": setting, "versions": versions, **device, "load before and after": load, **result}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
