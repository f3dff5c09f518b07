"""`jax-attention train` on a machine that shows 8 devices: the batch decides how many are used, the losses stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from jax_attention import training
from tests.cli.fox import QUICK
from tests.support.tolerances import GRADIENT

CLOSE = {"rtol": GRADIENT["float32"], "atol": GRADIENT["float32"]}
"""Sums over a batch are made in another order; the reason for the size is in tests/training/test_parallel.py."""


def losses(folder):
    """Training and validation losses, in the order in which they were written."""
    entries = training.read_metrics(folder / "metrics.jsonl")
    return [entry["loss"] for entry in entries if "loss" in entry]


@pytest.mark.slow
def test_training_uses_the_devices_that_divide_the_batch(run, text, tmp_path):
    """The default batch of 12 on 8 devices was refused, with a cure that was Python."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "jax_attention.cli",
        "train",
        str(text),
        "--out",
        str(tmp_path / "8"),
    ]
    done = subprocess.run(
        [*command, *QUICK, "--batch-size", "4"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "on 4 of 8 cpu devices, the largest number that divides a batch of 4 rows" in done.stdout
    np.testing.assert_allclose(losses(tmp_path / "8"), losses(run), **CLOSE)
    one, many = (
        json.loads((folder / "results.json").read_text(encoding="utf-8"))["this model"]["nats_per_token"]
        for folder in (run, tmp_path / "8")
    )
    np.testing.assert_allclose(many, one, **CLOSE)


class Device:
    """Stands for a device: `data_mesh` only counts them."""


@pytest.mark.parametrize(
    ("batch_size", "devices", "used"), [(12, 8, 6), (16, 8, 8), (7, 8, 7), (11, 8, 1), (3, 8, 3), (1, 4, 1), (12, 5, 4)]
)
def test_a_mesh_takes_the_largest_number_of_devices_that_divides_the_batch(monkeypatch, batch_size, devices, used):
    monkeypatch.setattr(jax, "make_mesh", lambda shape, names, *, axis_types, devices: (shape, len(devices)))
    assert training.data_mesh([Device()] * devices, batch_size=batch_size) == ((used,), used)


def test_several_processes_keep_all_devices(monkeypatch):
    """Each process must own a part of every batch; a batch that does not divide is then refused by `fit`."""
    monkeypatch.setattr(jax, "make_mesh", lambda shape, names, *, axis_types, devices: shape)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert training.data_mesh([Device()] * 8, batch_size=12) == (8,)


@pytest.mark.parametrize("wrong", [0, -4])
def test_a_batch_size_that_is_no_size_is_refused(wrong):
    with pytest.raises(ValueError, match="batch_size: expected"):
        training.data_mesh(batch_size=wrong)
