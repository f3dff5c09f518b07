"""Temporary memory of attention and its derivatives, as XLA reports it; nothing is run.

    python -m benchmarks.memory        about 3 minutes on 2 cores; writes results/memory.json

Causal attention, 2 heads of 64, float32, by this library (automatic choice of the implementation) and by jax.nn,
compiled for a CPU: `temp_size_in_bytes` of `memory_analysis()`. The operands, here 0.5 KiB per token each, do not
count. `forward` is the output; `gradient` that of sum(sin(output)) with respect to query, key and value; `jvp` output
and tangent; `hvp` a Hessian product, the tangent of the gradient. Then the gradient with rules that have arrays:
learned ALiBi slopes and a learned T5 table, which jax.nn gets as an array `[N, T, S]`, and ids of documents, which it
gets as a mask. The figures depend on the version of XLA, not on the load of the machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.attention import setting
from jax_attention import attend_heads, masks, mods, positions

HEADS, SIZE = 2, 64
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
RULE_LENGTHS = (2048, 4096, 8192)
RESULTS = Path(__file__).parent / "results" / "memory.json"


def library(q: Any, k: Any, v: Any, mod: tuple = ()) -> Any:
    """Causal attention by this library, `[T, N, H]`."""
    return attend_heads(q, k, v, mask=masks.causal(), mods=mod)


def jax_nn(q: Any, k: Any, v: Any, bias: Any = None, mask: Any = None) -> Any:
    """Causal attention by jax.nn, `[T, N, H]`."""
    return jax.nn.dot_product_attention(q[None], k[None], v[None], bias, mask, is_causal=True)[0]


COMPETITORS = {"jax_attention": library, "jax.nn": jax_nn}


def derivatives(attention: Callable) -> dict[str, Callable]:
    """Each derivative as a function of (operands, tangents)."""
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(attention(*x))))
    return {
        "forward": lambda x, t: attention(*x),
        "gradient": lambda x, t: gradient(x),
        "jvp": lambda x, t: jax.jvp(lambda x: attention(*x), (x,), (t,)),
        "hvp": lambda x, t: jax.jvp(gradient, (x,), (t,))[1],
    }


def temporary_mib(function: Callable, *arguments: Any) -> float:
    """MiB of temporary memory of the compiled function."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 2)


def operands(length: int) -> tuple:
    """Shapes of query, key and value."""
    return (jax.ShapeDtypeStruct((length, HEADS, SIZE), jnp.float32),) * 3


def slope(used: dict[int, float]) -> float:
    """Slope of memory over length on logarithmic axes, by least squares: 1 is linear, 2 is quadratic."""
    return round(float(np.polyfit(np.log(list(used)), np.log(list(used.values())), 1)[0]), 2)


def measure_growth() -> dict:
    """MiB and slopes by competitor, derivative and length."""
    results: dict = {}
    for name, attention in COMPETITORS.items():
        for derivative, function in derivatives(attention).items():
            used = {T: temporary_mib(function, operands(T), operands(T)) for T in LENGTHS}
            results.setdefault(name, {})[derivative] = {"MiB": used, "slope": slope(used)}
            print(name, derivative, results[name][derivative], flush=True)
    return results


def relative_positions(length: int) -> jax.Array:
    """Relative positions `[T, S]`; without the barrier XLA would fold them, and the bias, into constants."""
    at = jax.lax.optimization_barrier(jnp.arange(length))
    return at[None] - at[:, None]


def rule_cases(length: int) -> dict[str, tuple]:
    """For each rule the shape of its array, and attention by both libraries as functions of (q, k, v, array)."""
    relative = lambda table: mods.relative(table, bidirectional=False)  # noqa: E731
    buckets = lambda: positions.t5_buckets(relative_positions(length), bidirectional=False)  # noqa: E731
    return {
        "ALiBi slopes": (
            jax.ShapeDtypeStruct((HEADS,), jnp.float32),
            lambda *x: library(*x[:3], (mods.alibi(x[3]),)),
            lambda *x: jax_nn(*x[:3], (-x[3][:, None, None] * jnp.abs(relative_positions(length)))[None]),
        ),
        "T5 table": (
            jax.ShapeDtypeStruct((HEADS, 32), jnp.float32),
            lambda *x: library(*x[:3], (relative(x[3]),)),
            lambda *x: jax_nn(*x[:3], x[3][:, buckets()][None]),
        ),
        "documents": (
            jax.ShapeDtypeStruct((length,), jnp.int32),
            lambda *x: attend_heads(*x[:3], mask=masks.causal() & masks.segments(x[3])),
            lambda *x: jax_nn(*x[:3], mask=(x[3][:, None] == x[3])[None, None]),
        ),
    }


def measure_rules() -> dict:
    """MiB of the gradient, that of learned arrays included, by rule, competitor and length."""
    results: dict = {}
    for length in RULE_LENGTHS:
        for name, (array, *attentions) in rule_cases(length).items():
            to = (0, 1, 2) if name == "documents" else (0, 1, 2, 3)
            for competitor, attention in zip(COMPETITORS, attentions, strict=True):
                gradient = jax.grad(lambda *x, f=attention: jnp.sum(jnp.sin(f(*x))), to)
                used = temporary_mib(gradient, *operands(length), array)
                results.setdefault(name, {}).setdefault(competitor, {})[length] = used
                print(name, competitor, length, used, flush=True)
    return results


def main() -> None:
    """Compile all cases, print and write their memory."""
    here = {"heads": HEADS, "head size": SIZE} | setting("jax", "jaxlib")
    results = here | {"growth": measure_growth(), "gradient with": measure_rules()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
