"""Settings of all tests: CPU, float64 on request, one compilation cache for the whole run."""

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

from jax_attention.attention import evaluate
from tests.support import pytest_workers

compile_settings.shorten_locations()
compile_settings.reuse_mlir_contexts()
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("default")
PROGRAMS = pytest_workers.CompiledPrograms()


def pytest_collection_finish():
    """Runs once all tests are imported."""
    pytest_workers.collect_garbage_rarely()


def pytest_xdist_make_scheduler(config, log):
    """The scheduler of tests under `--dist loadfile`; other choices of `--dist` stay as they are."""
    return pytest_workers.CommandsOnOneWorker(config, log) if config.option.dist == "loadfile" else None


@pytest.fixture
def x64():
    """Enable float64 in JAX for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Drop compiled programs between two files if they take much memory."""
    yield
    PROGRAMS.drop_if_large()


@pytest.fixture(autouse=True)
def no_trace_from_before_a_patch(request):
    """Clear cached traces around a test that patches: their keys, rules and shapes, do not change with the patch."""
    patches = "monkeypatch" in request.fixturenames
    if patches:
        evaluate._compute_cached.clear_cache()
    yield
    if patches:
        evaluate._compute_cached.clear_cache()
