"""Data parallelism: 8 devices have the losses, batches and dropout of one, and can read its checkpoints.

Sums over a batch are added in another order on 8 devices, so losses may differ by rounding. Each of the 6 steps of Adam
divides gradients by their size and so does not amplify relative differences. The tolerance is that of gradients in
tests/support/tolerances.py.
"""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest
from jax.sharding import AxisType

from jax_attention.training.evaluation import make_evaluate
from jax_attention.training.loop import fit
from jax_attention.training.parallel import data_mesh, replicate, split_rows
from tests.support.bigram import Text, config, make

PROGRAM = """
import dataclasses, sys
import jax, numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jax_attention.training.checkpoints import Checkpoints
from jax_attention.training.evaluation import make_evaluate
from jax_attention.training.loop import LoopConfig, fit
from jax_attention.training.parallel import data_mesh, must_run_alone, replicate, replicated, split_rows
from tests.support.tolerances import GRADIENT
from tests.training.test_resume import language_model
from tests.support.bigram import Text, assert_same_bits

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
    result = fit(state, counted, source, config, checkpoints=checkpoints, writers=[Log()], mesh=mesh,
               evaluate=make_evaluate(source, 8, mesh=mesh))
    assert len(traces) == 1
    assert all(len(x.sharding.device_set) == devices for x in jax.tree.leaves(result.state))
    return losses, result

losses_1, result_1 = run(1, "one")
losses_8, result_8 = run(8, "eight")
np.testing.assert_allclose(losses_1, losses_8, **close)
for a, b in zip(result_1.evaluation.values(), result_8.evaluation.values()):
    np.testing.assert_allclose(a, b, **close)
for a, b in zip(jax.tree.leaves(result_1.state.model), jax.tree.leaves(result_8.state.model)):
    np.testing.assert_allclose(a, b, **close)
assert losses_1[0] != losses_1[1]

# Programs with collectives must not overlap on the devices of one CPU: they share its threads and can deadlock.
waits, wait = [], jax.block_until_ready
jax.block_until_ready = lambda x: waits.append(1) or wait(x)
make_evaluate(source, 8, mesh=data_mesh())(result_8.state.model)
jax.block_until_ready = wait
assert must_run_alone(data_mesh()) and not must_run_alone(data_mesh(jax.devices()[:1]))
assert len(waits) == len(list(source.evaluation_batches(8))) > 1

# The order of rows is that of the batch; each device holds two of 16.
mesh = data_mesh()
batch = source.batch(0, 3, 16)
placed = split_rows(batch, mesh)
np.testing.assert_array_equal(placed.tokens, batch.tokens)
assert [shard.data.shape for shard in placed.tokens.addressable_shards] == [(2, 8)] * 8

# A checkpoint of 8 devices is restored on 4, and one of 1 on 8, bit for bit.
four = data_mesh(jax.devices()[:4])
like = language_model()[0]
for folder, target in (("eight", four), ("one", mesh)):
    state = Checkpoints(sys.argv[1] + "/" + folder).restore(like=replicate(like, target))
    assert_same_bits(state, {"eight": result_8, "one": result_1}[folder].state)
    assert all(x.sharding == replicated(target) for x in jax.tree.leaves(state))

# A state that is split over the devices is neither copied whole to each of them in silence, nor evaluated so.
def split_kernel(tree):
    spec = lambda x: PartitionSpec("data") if x.ndim and x.shape[0] % 8 == 0 else PartitionSpec()
    return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, spec(x))), tree)

split = dataclasses.replace(like, model=split_kernel(like.model))
for name, call in (("state", lambda: fit(split, None, source, config)),
                   ("base", lambda: fit(like, None, source, config, base=split.model)),
                   ("model", lambda: make_evaluate(source, 8)(split.model))):
    with pytest.raises(ValueError, match=name + ": expected arrays that every device holds whole, got .* split by P"):
        call()
assert [x.sharding.is_fully_replicated for x in jax.tree.leaves(split.model)].count(False) > 3
whole = replicate(split, mesh)
assert_same_bits(whole, like)
assert int(fit(whole, language_model()[1], source, LoopConfig(steps=1, batch_size=16)).state.step) == 1

for call in (lambda: fit(like, None, source, LoopConfig(batch_size=12)), lambda: make_evaluate(source, 12),
             lambda: split_rows(source.batch(0, 0, 12), mesh)):
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 8 devices of the mesh, got 12"):
        call()
print("equal on", len(jax.devices()), "largest difference", np.abs(np.subtract(losses_1, losses_8)).max())
"""


CACHE_RACES = [f"-Wignore:Error {verb} persistent compilation cache" for verb in ("reading", "writing")]
"""Warnings to ignore: another process may be writing the cache entry that this one reads; it then compiles instead."""


@pytest.mark.slow
def test_eight_devices_train_like_one(tmp_path):
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    flags = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    environment = {**os.environ, **cache, **flags}
    command = [sys.executable, "-W", "error", *CACHE_RACES, "-c", PROGRAM, str(tmp_path)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.stdout.startswith("equal on 8"), finished.stderr[-3000:]


def test_one_device_is_no_special_case():
    mesh, (state, _) = data_mesh(), make()
    placed = replicate(state, mesh)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(placed))
    assert split_rows(Text().batch(0, 0, 3), mesh).positions is None
    with pytest.raises(ValueError, match="devices: expected at least one device, got none"):
        data_mesh([])


def test_a_mesh_without_the_axis_data_is_an_error_with_the_axes_that_it_has():
    mesh = jax.make_mesh((1, 1), ("batch", "model"), axis_types=(AxisType.Auto,) * 2)
    state, step = make()
    calls = (
        lambda: fit(state, step, Text(), config(), mesh=mesh),
        lambda: make_evaluate(Text(), 4, mesh=mesh),
        lambda: split_rows(Text().batch(0, 0, 4), mesh),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"mesh: expected an axis 'data', .* got the axes batch, model"):
            call()
