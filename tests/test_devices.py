"""Many devices: arrays sharded over batch, heads and queries give the same numbers, dropout bits included."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jax_attention import Dropout, attend_heads, masks, mods, positions

assert len(jax.devices()) == 8
mesh = jax.make_mesh((2, 2, 2), ("batch", "rows", "heads"), axis_types=(AxisType.Auto,) * 3)
q = jax.random.normal(jax.random.key(0), (4, 6, 4, 8))
k, v = jax.random.normal(jax.random.key(1), (2, 4, 6, 2, 8))
slopes, lengths = positions.alibi_slopes(4), jnp.array([6, 3, 0, 1])

def loss(q, k, v, slopes, lengths):
    out = attend_heads(
        q, k, v, mods=(mods.alibi(slopes),), mask=masks.causal() & masks.lengths(lengths[:, None]),
        dropout=Dropout(jax.random.key(2), 0.3))
    return jnp.sin(out).sum(), out

run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
one = run(q, k, v, slopes, lengths)
place = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
many = run(place(q, "batch", "rows", "heads"), place(k, "batch", None, "heads"), place(v, "batch", None, "heads"),
           place(slopes, "heads"), place(lengths, "batch"))
assert len(many[0][1].sharding.device_set) == 8
for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
np.testing.assert_array_equal(one[0][1] == 0, many[0][1] == 0)
print("equal on", len(jax.devices()))
"""


def test_sharded_equals_unsharded_on_eight_devices():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "equal on 8", done.stderr[-2000:]
