"""`jax-attention train` with 8 devices: the batch size decides how many are used; losses do not change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from jax_attention import training
from jax_attention.cli.arguments import parse
from tests.cli.quick_run import QUICK
from tests.support.tolerances import GRADIENT

TOLERANCE = {"rtol": GRADIENT["float32"], "atol": GRADIENT["float32"]}
"""Sums over a batch have another order; tests/training/test_parallel.py derives the size."""


def losses(folder):
    """Training and validation losses, in the order in which they were written."""
    entries = training.read_metrics(folder / "metrics.jsonl")
    return [entry["loss"] for entry in entries if "loss" in entry]


@pytest.mark.slow
def test_training_uses_the_devices_that_divide_the_batch(run, text, tmp_path):
    """A batch that the devices do not divide used to be refused, with advice that only Python code could follow."""
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
    np.testing.assert_allclose(losses(tmp_path / "8"), losses(run), **TOLERANCE)
    one, many = (
        json.loads((folder / "results.json").read_text(encoding="utf-8"))["this model"]["nats_per_token"]
        for folder in (run, tmp_path / "8")
    )
    np.testing.assert_allclose(many, one, **TOLERANCE)


class Device:
    """A stand-in for a device: `data_mesh` only counts them."""

    platform = "gpu"


@pytest.mark.parametrize(
    ("options", "used", "expected"),
    [
        ([], 6, "6 of 8 gpu devices, the largest number that divides a batch of 12 rows"),
        (
            ["--devices", "8"],
            6,
            "6 of 8 gpu devices, the largest number up to --devices 8 that divides a batch of 12 rows",
        ),
        (
            ["--devices", "2"],
            2,
            "2 of 8 gpu devices, the largest number up to --devices 2 that divides a batch of 12 rows",
        ),
    ],
)
def test_devices_limits_the_mesh(monkeypatch, options, used, expected):
    monkeypatch.setattr(jax, "devices", lambda: [Device()] * 8)
    monkeypatch.setattr(
        jax, "make_mesh", lambda shape, names, *, axis_types, devices: types.SimpleNamespace(size=shape[0])
    )
    settings = parse(["train", *options]).settings
    assert settings.mesh.size == used
    assert settings.devices_text() == expected


@pytest.mark.parametrize(
    ("batch_size", "devices", "used"), [(12, 8, 6), (16, 8, 8), (7, 8, 7), (11, 8, 1), (3, 8, 3), (1, 4, 1), (12, 5, 4)]
)
def test_a_mesh_takes_the_largest_number_of_devices_that_divides_the_batch(monkeypatch, batch_size, devices, used):
    monkeypatch.setattr(jax, "make_mesh", lambda shape, names, *, axis_types, devices: (shape, len(devices)))
    assert training.data_mesh([Device()] * devices, batch_size=batch_size) == ((used,), used)


def test_several_processes_keep_all_devices(monkeypatch):
    """Each process needs a part of every batch; a batch that does not divide is then refused by `fit`."""
    monkeypatch.setattr(jax, "make_mesh", lambda shape, names, *, axis_types, devices: shape)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert training.data_mesh([Device()] * 8, batch_size=12) == (8,)


@pytest.mark.parametrize("wrong", [0, -4])
def test_a_batch_size_below_one_is_refused(wrong):
    with pytest.raises(ValueError, match="batch_size: expected"):
        training.data_mesh(batch_size=wrong)
