"""Generation and beam search of an encoder–decoder with a batch over 8 devices, and with everything on the last one."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jax_attention import decoding
from jax_attention.cache import EMPTY
from tests.models import pairs, small

devices = jax.devices()
assert len(devices) == 8
mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
model = pairs.pair("post-norm, learned", depth=1)
lengths, count = jnp.array([5, 3, 1, 5, 4, 2, 5, 5]), jnp.arange(5)
data = small.tokens(8, 5), small.tokens(8, 4, seed=1), jnp.where(count < lengths[:, None], count, EMPTY)

def assert_close(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **small.CLOSE)

def decode(model, source, target, positions):
    decoder = model.condition(source, positions=positions)
    beams = decoding.beam_search(decoder, target, max_new_tokens=6, num_beams=3)
    return [decoding.generate(decoder, target, max_new_tokens=6), beams]

def devices_of(results):
    return {device for x in jax.tree.leaves(results) for device in x.devices()}

spread = [jax.device_put(x, NamedSharding(mesh, P("batch"))) for x in data]
one, many = decode(model, *data), decode(model, *spread)
assert devices_of(one) == {devices[0]}
assert devices_of([out.tokens for out in many]) == set(devices)
assert_close(one, many)

last = jax.device_put(model, devices[-1])
on_last = decode(last, *map(np.asarray, data))
assert devices_of(on_last) == {devices[-1]}
assert_close(one, on_last)
print("equal on", len(devices))
"""


@pytest.mark.slow
def test_a_batch_over_eight_devices_and_all_on_the_last():
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.stdout.strip() == "equal on 8", finished.stderr[-3000:]
