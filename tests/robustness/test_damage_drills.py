"""Flipped bits and truncated files in the newest checkpoint: the right state, the one before, or a clear error."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention.training import Checkpoints
from tests.support.tiers import slow

RNG = np.random.default_rng(0)
STATES = {
    step: {
        "w": jnp.asarray(RNG.normal(size=(40, 9)), jnp.float32),
        "step": jnp.asarray(step),
        "rng": jax.random.key(step),
    }
    for step in (10, 20)
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(folder, run="a")
    for step, state in STATES.items():
        checkpoints.save(step, state, metrics={"loss": 1.0})
    checkpoints.wait()
    return folder


def bits(state):
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in state]


def restored_step(folder):
    """The step that is restored, after a check that all of its bits are right."""
    state, step, problems = Checkpoints(folder, run="a").restore_newest(like=STATES[20])
    for a, b in zip(bits(jax.tree.leaves(state)), bits(jax.tree.leaves(STATES[step])), strict=True):
        np.testing.assert_array_equal(a, b)
    assert bool(problems) == (step == 10)
    return step


def damaged(saved, folder, damage, rng):
    """Apply some damage to one file of the newest checkpoint; return the relative path of the file."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    files = sorted(path for path in (folder / "20").rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    if damage == "flip" and content:
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    elif damage == "truncate":
        del content[rng.integers(len(content) + 1) :]
    path.write_bytes(content)
    if damage == "delete":
        path.unlink()
    return path.relative_to(folder)


def drill(saved, folder, damage, count):
    rng, steps = np.random.default_rng(1), []
    for _ in range(count):
        damaged(saved, folder, damage, rng)
        steps.append(restored_step(folder))
    return steps


@pytest.mark.parametrize("damage", ["flip", *slow("truncate", "delete")])
def test_damage_never_changes_a_number(saved, tmp_path, damage):
    assert 10 in drill(saved, tmp_path / "copy", damage, 8)


@pytest.mark.long
@pytest.mark.parametrize(("damage", "count"), [("flip", 400), ("truncate", 100), ("delete", 40)])
def test_much_damage_never_changes_a_number(saved, tmp_path, damage, count):
    steps = drill(saved, tmp_path / "copy", damage, count)
    assert len(steps) == count
    assert set(steps) == {10, 20}
