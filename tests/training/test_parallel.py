"""Data parallelism: 8 devices give the loss curve, batches and dropout of one, and exchange checkpoints with it.

The sums over a batch are made in another order on 8 devices, so losses may differ by rounding; each of the 6 steps of
Adam divides gradients by their own size and so keeps relative differences as they are. The tolerance is that of
gradients in tests/support/tolerances.py.
"""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest

from jax_attention.training.parallel import data_mesh, replicate, split_rows
from tests.training.tiny import Text, make

PROGRAM = """
import sys
import jax, numpy as np
import pytest
from jax_attention.training.checkpoints import Checkpoints
from jax_attention.training.evaluation import make_evaluate
from jax_attention.training.loop import LoopConfig, fit
from jax_attention.training.parallel import data_mesh, must_run_alone, replicate, replicated, split_rows
from tests.support.tolerances import GRADIENT
from tests.training.test_resume import language_model
from tests.training.tiny import Text, assert_same_bits

assert len(jax.devices()) == 8
source, config = Text(11, 8), LoopConfig(steps=6, batch_size=16, log_every=1)
close = dict(rtol=GRADIENT["float32"], atol=GRADIENT["float32"])

def run(devices, folder):
    mesh = data_mesh(jax.devices()[:devices])
    losses, traces = [], []
    class Log:
        def write(self, kind, step, values):
            losses.append(values["loss"])
    state, step = language_model()
    def counted(state, batch):
        traces.append(1)
        return step(state, batch)
    checkpoints = Checkpoints(sys.argv[1] + "/" + folder)
    done = fit(state, counted, source, config, checkpoints=checkpoints, writers=[Log()], mesh=mesh,
               evaluate=make_evaluate(source, 8, mesh=mesh))
    assert len(traces) == 1
    assert all(len(x.sharding.device_set) == devices for x in jax.tree.leaves(done.state))
    return losses, done

one, done_1 = run(1, "one")
eight, done_8 = run(8, "eight")
np.testing.assert_allclose(one, eight, **close)
for a, b in zip(done_1.evaluation.values(), done_8.evaluation.values()):
    np.testing.assert_allclose(a, b, **close)
for a, b in zip(jax.tree.leaves(done_1.state.model), jax.tree.leaves(done_8.state.model)):
    np.testing.assert_allclose(a, b, **close)
assert one[0] != one[1]

# Programs with collectives must not overlap on the devices of one CPU: they share its threads and wait for each other.
waits, wait = [], jax.block_until_ready
jax.block_until_ready = lambda x: waits.append(1) or wait(x)
make_evaluate(source, 8, mesh=data_mesh())(done_8.state.model)
jax.block_until_ready = wait
assert must_run_alone(data_mesh()) and not must_run_alone(data_mesh(jax.devices()[:1]))
assert len(waits) == len(list(source.evaluation_batches(8))) > 1

# The order of rows is that of the batch; each device holds its own part.
mesh = data_mesh()
batch = source.batch(0, 3, 16)
placed = split_rows(batch, mesh)
np.testing.assert_array_equal(placed.tokens, batch.tokens)
assert [shard.data.shape for shard in placed.tokens.addressable_shards] == [(2, 8)] * 8

# A checkpoint of 8 devices goes on on 4, bit for bit the same state, and the other way round.
four = data_mesh(jax.devices()[:4])
like = language_model()[0]
for folder, to in (("eight", four), ("one", mesh)):
    state = Checkpoints(sys.argv[1] + "/" + folder).restore(like=replicate(like, to))
    assert_same_bits(state, {"eight": done_8, "one": done_1}[folder].state)
    assert all(x.sharding == replicated(to) for x in jax.tree.leaves(state))

for call in (lambda: fit(like, None, source, LoopConfig(batch_size=12)), lambda: make_evaluate(source, 12),
             lambda: split_rows(source.batch(0, 0, 12), mesh)):
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 8 devices of the mesh, got 12"):
        call()
print("equal on", len(jax.devices()), "largest difference", np.abs(np.subtract(one, eight)).max())
"""


CACHE_RACES = [f"-Wignore:Error {verb} persistent compilation cache" for verb in ("reading", "writing")]
"""Another worker of the tests may be writing an entry of the cache that this process reads; it compiles instead."""


@pytest.mark.slow
def test_eight_devices_train_like_one(tmp_path):
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    flags = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    environment = {**os.environ, **cache, **flags}
    command = [sys.executable, "-W", "error", *CACHE_RACES, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("equal on 8"), done.stderr[-3000:]


def test_one_device_is_no_special_case():
    mesh, (state, _) = data_mesh(), make()
    placed = replicate(state, mesh)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(placed))
    assert split_rows(Text().batch(0, 0, 3), mesh).positions is None
    with pytest.raises(ValueError, match="devices: expected at least one device, got none"):
        data_mesh([])
