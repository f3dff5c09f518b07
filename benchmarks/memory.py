"""How much temporary memory do attention and its derivatives need? XLA's own figure; nothing is run.

    python -m benchmarks.memory        about 3 minutes on 2 cores; writes results/memory.json

Causal, 2 heads of 64, float32, ours (its implementation chosen by itself) and jax.nn's, compiled for a CPU:
`temp_size_in_bytes` of `memory_analysis()`. The operands' own bytes, here 0.5 KiB a token each, do not count. `forward`
is the output; `gradient` that of sum(sin(output)) to query, key and value; `jvp` output and tangent; `hvp` a Hessian
product, the tangent of the gradient. Then the gradient with rules that have arrays: ALiBi's slopes and T5's table, both
learned, which jax.nn gets as an array `[N, T, S]`, and ids of documents, which it gets as a mask. The figures depend on
the version of XLA, not on what else the machine does.
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
RULES_AT = (2048, 4096, 8192)
RESULTS = Path(__file__).parent / "results" / "memory.json"


def ours(q: Any, k: Any, v: Any, mod: tuple = ()) -> Any:
    """The library."""
    return attend_heads(q, k, v, mask=masks.causal(), mods=mod)


def jax_nn(q: Any, k: Any, v: Any, bias: Any = None, mask: Any = None) -> Any:
    """The same by jax.nn."""
    return jax.nn.dot_product_attention(q[None], k[None], v[None], bias, mask, is_causal=True)[0]


COMPETITORS = {"jax_attention": ours, "jax.nn": jax_nn}


def derivatives(attention: Callable) -> dict[str, Callable]:
    """Functions of (operands, tangents)."""
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(attention(*x))))
    return {
        "forward": lambda x, t: attention(*x),
        "gradient": lambda x, t: gradient(x),
        "jvp": lambda x, t: jax.jvp(lambda x: attention(*x), (x,), (t,)),
        "hvp": lambda x, t: jax.jvp(gradient, (x,), (t,))[1],
    }


def temporary(function: Callable, *arguments: Any) -> float:
    """MiB."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 2)


def operands(length: int) -> tuple:
    """Shapes of query, key and value."""
    return (jax.ShapeDtypeStruct((length, HEADS, SIZE), jnp.float32),) * 3


def slope(used: dict[int, float]) -> float:
    """Of memory against length on logarithmic axes, by least squares: 1 is linear, 2 is quadratic."""
    return round(float(np.polyfit(np.log(list(used)), np.log(list(used.values())), 1)[0]), 2)


def growth() -> dict:
    """MiB by competitor, derivative and length, and the slopes."""
    found: dict = {}
    for name, attention in COMPETITORS.items():
        for what, function in derivatives(attention).items():
            used = {T: temporary(function, operands(T), operands(T)) for T in LENGTHS}
            found.setdefault(name, {})[what] = {"MiB": used, "slope": slope(used)}
            print(name, what, found[name][what], flush=True)
    return found


def away(length: int) -> jax.Array:
    """Distances `[T, S]`, hidden from XLA, which would compute them and all that follows while it compiles."""
    at = jax.lax.optimization_barrier(jnp.arange(length))
    return at[None] - at[:, None]


def rules(length: int) -> dict[str, tuple]:
    """Rule -> the shape of its array, ours, and jax.nn's as functions of (query, key, value, array)."""
    relative = lambda table: mods.relative(table, bidirectional=False)  # noqa: E731
    buckets = lambda: positions.t5_buckets(away(length), bidirectional=False)  # noqa: E731
    return {
        "ALiBi slopes": (
            jax.ShapeDtypeStruct((HEADS,), jnp.float32),
            lambda *x: ours(*x[:3], (mods.alibi(x[3]),)),
            lambda *x: jax_nn(*x[:3], (-x[3][:, None, None] * jnp.abs(away(length)))[None]),
        ),
        "T5 table": (
            jax.ShapeDtypeStruct((HEADS, 32), jnp.float32),
            lambda *x: ours(*x[:3], (relative(x[3]),)),
            lambda *x: jax_nn(*x[:3], x[3][:, buckets()][None]),
        ),
        "documents": (
            jax.ShapeDtypeStruct((length,), jnp.int32),
            lambda *x: attend_heads(*x[:3], mask=masks.causal() & masks.segments(x[3])),
            lambda *x: jax_nn(*x[:3], mask=(x[3][:, None] == x[3])[None, None]),
        ),
    }


def with_rules() -> dict:
    """MiB of the gradient to query, key, value and what is learned in a rule, by rule, competitor and length."""
    found: dict = {}
    for length in RULES_AT:
        for name, (array, *attentions) in rules(length).items():
            to = (0, 1, 2) if name == "documents" else (0, 1, 2, 3)
            for who, attention in zip(COMPETITORS, attentions, strict=True):
                gradient = jax.grad(lambda *x, f=attention: jnp.sum(jnp.sin(f(*x))), to)
                used = temporary(gradient, *operands(length), array)
                found.setdefault(name, {}).setdefault(who, {})[length] = used
                print(name, who, length, used, flush=True)
    return found


def main() -> None:
    """Compile, print, write."""
    here = {"heads": HEADS, "head size": SIZE} | setting("jax", "jaxlib")
    results = here | {"growth": growth(), "gradient with": with_rules()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
