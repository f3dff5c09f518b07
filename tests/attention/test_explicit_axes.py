"""Meshes with explicit axes, the default of `jax.make_mesh`, give the numbers and gradients of one device.

There every array has its sharding in its type, and JAX refuses what it cannot derive: rows gathered from a table,
merged dimensions, constants as the state of a loop. The cases are in tests/support/explicit_cases.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import pytest

from tests.support.explicit_cases import CASES

QUICK = [
    "everything-blockwise",
    "attend_step",
    "MultiHeadAttention(by head)",
    "FeedForward(rows)",
]
GROUP = 30
"""Cases of one process."""
REST = [name for name in CASES if name not in QUICK]
GROUPS = [REST[i : i + GROUP] for i in range(0, len(REST), GROUP)]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(QUICK, id="quick"),
        *(pytest.param(names, id=f"rest{i}", marks=pytest.mark.slow) for i, names in enumerate(GROUPS)),
    ],
)
def test_explicit_axes_give_the_numbers_of_one_device(names):
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "tests.support.explicit_cases", *names]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    assert json.loads(process.stdout) == dict.fromkeys(names, ""), process.stderr[-2000:]
