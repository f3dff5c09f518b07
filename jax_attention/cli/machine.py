"""Limits of this machine, checked before anything is allocated: devices and memory."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp

from jax_attention import models
from jax_attention.cli import report
from jax_attention.cli.settings import TrainSettings
from jax_attention.core.checks import fail_unless

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""File with the memory limit of a container on Linux."""
COUNTED_DEPTH = 64
"""Depth up to which parameters are counted on the whole model; tracing a deeper one would take minutes."""


def check_machine(config: models.LMConfig, settings: TrainSettings) -> None:
    """Refuse more devices than there are, and a model that is too large to train in their memory."""
    count = len(jax.devices())
    fail_unless(
        settings.devices is None or settings.devices <= count,
        f"devices: expected at most the {count} of this machine, got {settings.devices}. Leave it out for all.",
    )
    parameters = _count_parameters(config)
    needed, available = training_bytes(config, settings, parameters), memory_bytes()
    fail_unless(
        needed <= available,
        f"model: expected one that trains in the {available:,} bytes of memory of this machine, got one that needs at "
        f"least {needed:,} bytes ({parameters:,} parameters). Lower --width, --depth, --context or --batch-size.",
    )


def training_bytes(config: models.LMConfig, settings: TrainSettings, parameters: int) -> int:
    """Lower bound of the memory of a device: weights, their gradients and moments, and one activation per block.

    parameters (1 + 3 if all are trained) itemsize + tokens width depth itemsize
    """
    copies = 4 if settings.lora is None else 1
    rows = settings.loop.batch_size // (max(settings.accumulate, 1) * settings.mesh.size)
    activations = rows * (settings.length or config.context) * config.width * config.depth
    return copies * parameters * jnp.dtype(config.param_dtype).itemsize + activations * jnp.dtype(config.dtype).itemsize


def memory_bytes() -> int:
    """Memory of a device; for a CPU that of the machine, or of its container."""
    statistics = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP_LIMIT.read_text(encoding="ascii").strip() if CGROUP_LIMIT.is_file() else "max"
    return min(total, int(limit)) if limit.isdigit() else total


def _count_parameters(config: models.LMConfig) -> int:
    """Number of parameters; of a deep model by those of a shallow one, as all periods of windows are alike."""
    period = len(config.windows)
    if config.depth <= max(COUNTED_DEPTH, 2 * period):
        return report.count_parameters(config)
    one, two = (
        report.count_parameters(dataclasses.replace(config, depth=depth, scan=False)) for depth in (period, 2 * period)
    )
    return one + (two - one) * (config.depth - period) // period
