"""Orbax, imported when it is needed, with one clear error for files that it cannot read."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jax_attention.core.os_errors import find_os_error
from jax_attention.training.checkpoint_description import DamagedCheckpoint

NO_DAMAGE = ("Too many open files", "ermission denied", "PERMISSION_DENIED", "annot allocate", "RESOURCE_EXHAUSTED")
"""Texts of errors that say nothing about the files; TensorStore raises ValueError for them too."""


def orbax() -> Any:
    """Orbax's module, or an error that says how to install it."""
    try:
        from orbax.checkpoint import v1
    except ImportError as error:
        raise ImportError(
            "Checkpoints: expected the package orbax-checkpoint, got none. Install it: pip install "
            "'jax_attention[train]'."
        ) from error
    _drop_late_reports()
    return v1


@functools.cache
def _drop_late_reports() -> None:
    """Print no traceback of the threads of Orbax and TensorStore: the first error of a read or a save is raised here.

    After it, threads that still run report that their event loop is closed, each with a traceback of its own.
    """
    report = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("absl").addFilter(lambda record: "run() raised an exception" not in record.getMessage())


@contextlib.contextmanager
def short_errors(path: Path) -> Iterator[None]:
    """Turn an error while reading into one clear error, and silence the pages that Orbax logs about storage details."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited")  # those after the one that failed
            yield
    except (MemoryError, PermissionError):
        raise
    except DamagedCheckpoint:
        _check_readable(path)
        raise
    except Exception as error:  # Which types Orbax and TensorStore raise for broken files is not documented.
        reason = " ".join(str(error).split())[:200]
        # Abandoned tasks of Orbax log an error when they are collected: collect them now, while the loggers are off.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        _check_readable(path)
        if any(cause in reason for cause in NO_DAMAGE):
            cause = find_os_error(reason) or OSError(f"checkpoint {path}: expected to read it, got {reason}.")
            raise cause from None
        raise DamagedCheckpoint(
            f"checkpoint {path}: expected files as Orbax wrote them, got {type(error).__name__}: {reason}. The "
            "checkpoint is damaged or incomplete.",
            "Restore another step by its number.",
        ) from None
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _check_readable(path: Path) -> None:
    """Raise the error of the first file or folder that may not be read: that is no damage, and Orbax hides it."""

    def fail(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(path, onerror=fail):
        for name in names:
            os.close(os.open(Path(folder) / name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))


def save_error(path: Path, error: Exception) -> OSError:
    """The error of a failed save as one of the operating system, with its file if TensorStore names it."""
    if isinstance(error, OSError):
        return error
    text = " ".join(str(error).split())
    return find_os_error(text) or OSError(
        f"checkpoint {path}: expected to write it, got {type(error).__name__}: {text[:200]}."
    )
