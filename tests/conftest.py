"""Shared settings of all tests: CPU, true float64 on request, one compilation cache for the whole run."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from tests.support import compile_settings

compile_settings.set_flags()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

gc.disable()  # until all tests are imported
import hypothesis
import jax
import pytest

from jax_attention.attention import cached_jit
from tests.support import pytest_workers

compile_settings.shorten_locations()
compile_settings.reuse_mlir_contexts()
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("default")
PROGRAMS = pytest_workers.CompiledPrograms()


def pytest_collection_finish():
    """All tests are imported."""
    pytest_workers.search_for_cycles_rarely()


def pytest_xdist_make_scheduler(config, log):
    """Which tests run in one process; other choices of `--dist` stay as they are."""
    return pytest_workers.CommandsOnOneWorker(config, log) if config.option.dist == "loadfile" else None


@pytest.fixture
def x64():
    """True float64 for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Between two files, forget compiled programs if they take much memory."""
    yield
    PROGRAMS.forget_if_large()


@pytest.fixture(autouse=True)
def nothing_remembered_from_before_a_patch(request):
    """Traces are kept for equal rules and shapes, which would not notice that a test patches something."""
    patches = "monkeypatch" in request.fixturenames
    if patches:
        cached_jit._run.clear_cache()
    yield
    if patches:
        cached_jit._run.clear_cache()
