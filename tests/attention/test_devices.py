"""Arrays sharded over batch, heads and queries give the same numbers as on one device, including the dropout bits.

The same holds under `shard_map`, for gradients and Hessian products too.
"""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest

SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jax_attention import Blockwise, Dropout, attend, attend_heads, masks, mods, normalizers, positions, scores

assert len(jax.devices()) == 8
mesh = jax.make_mesh((2, 2, 2), ("batch", "rows", "heads"), axis_types=(AxisType.Auto,) * 3)
q = jax.random.normal(jax.random.key(0), (4, 6, 4, 8))
k, v = jax.random.normal(jax.random.key(1), (2, 4, 6, 2, 8))
slopes, lengths = positions.alibi_slopes(4), jnp.array([6, 3, 0, 1])

def attention(q, k, v, slopes, lengths, dropout=None, implementation=None):
    return attend_heads(q, k, v, mods=(mods.alibi(slopes),), mask=masks.causal() & masks.lengths(lengths[:, None]),
                        dropout=dropout, implementation=implementation)

def check_close(one, many):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

place = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
sharded = (place(q, "batch", "rows", "heads"), place(k, "batch", None, "heads"), place(v, "batch", None, "heads"),
           place(slopes, "heads"), place(lengths, "batch"))
dropout = Dropout(jax.random.key(2), 0.3)
results = []
for implementation in ("reference", Blockwise(tile=(4, 3))):
    def loss(*arrays):
        out = attention(*arrays, dropout, implementation)
        return jnp.sin(out).sum(), out

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    one, many = run(q, k, v, slopes, lengths), run(*sharded)
    assert len(many[0][1].sharding.device_set) == 8
    check_close(one, many)
    np.testing.assert_array_equal(one[0][1] == 0, many[0][1] == 0)
    results.append(one)
check_close(*results)
"""

SHARD_MAP = """
specs = P("batch", None, "heads"), P("batch", None, "heads"), P("batch", None, "heads"), P("heads"), P("batch")
sharded_attention = jax.shard_map(
    lambda *arrays: attention(*arrays, None, Blockwise(tile=(4, 3))), mesh=mesh, in_specs=specs, out_specs=specs[0],
    axis_names={"batch", "heads"})
whole = lambda *arrays: attention(*arrays, None, "reference")
for function in (whole, sharded_attention):
    gradient = jax.grad(lambda *arrays: jnp.sin(function(*arrays)).sum(), argnums=(0, 1, 2, 3))
    tangents = jax.tree.map(jnp.cos, (q, k, v, slopes))
    hessian = lambda *x: jax.jvp(lambda *y: gradient(*y, lengths), x, tangents)
    results.append(jax.jit(lambda *x: (function(*x, lengths), hessian(*x)))(q, k, v, slopes))
check_close(*results[2:])

long, w = jax.random.normal(jax.random.key(3), (2, 600, 3)), jnp.ones(600)
plain = lambda x: attend(x, x, x, mods=(lambda z, s, t: z * w[s],), mask=lambda s, t: t <= s)
kernel = {"score": scores.features("elu_plus_one"), "normalize": normalizers.proportional()}
linear = lambda x: attend(x, x, x, mask=masks.causal(), **kernel)
for rule in (plain, linear):
    gradient = lambda f: jax.jit(jax.grad(lambda x: jnp.sin(f(x)).sum()))(long)
    batch = jax.shard_map(rule, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"), axis_names={"batch"})
    check_close(gradient(rule), gradient(batch))

ids, w = jnp.stack([jnp.arange(64) // 5, jnp.zeros(64, jnp.int32)]), jnp.ones(64)
def documents(x, ids, w):
    mask = masks.segments(ids)
    return attend(x, x, x, mods=(lambda z, s, t: z * w[s],), mask=mask, implementation=Blockwise(tile=(16, 16)))
by_batch = jax.shard_map(documents, mesh=mesh, in_specs=(P("batch"), P("batch"), P()), out_specs=P("batch"),
                         axis_names={"batch"})
check_close(*(jax.jit(jax.grad(lambda x, w: jnp.sin(f(x, ids, w)).sum(), (0, 1)))(long[:, :64], w)
              for f in (documents, by_batch)))

explicit = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Explicit,))
copies = jnp.concatenate([long] * 4)
one = gradient(plain), gradient(linear)
with jax.set_mesh(explicit):
    sharded = jax.device_put(copies, NamedSharding(explicit, P("batch")))
    for rule, expected in zip((plain, linear), one):
        actual = jax.jit(jax.grad(lambda x: jnp.sin(rule(x)).sum()))(sharded)
        assert actual.sharding.spec == P("batch", None, None)
        check_close(expected, np.asarray(actual)[:2])

sparse = lambda q: attend_heads(q, q, q, normalize=normalizers.sparsemax())
check_close(sparse(q), jax.jit(jax.shard_map(sparse, mesh=mesh, in_specs=specs[0], out_specs=specs[0],
                                      axis_names={"batch", "heads"}))(q))
"""


@pytest.mark.parametrize(
    "program", [SHARDED, pytest.param(SHARDED + SHARD_MAP, marks=pytest.mark.slow)], ids=["sharded", "shard_map"]
)
def test_sharded_equals_unsharded_on_eight_devices(program):
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    program += 'print("equal on", len(jax.devices()))'
    process = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert process.stdout.strip() == "equal on 8", process.stderr[-2000:]
