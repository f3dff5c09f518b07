"""Shared settings of all tests: CPU, true float64 on request, one compilation cache for the whole run."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from tests import quick_compiles

quick_compiles.set_flags()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

gc.disable()  # until all tests are imported
import hypothesis
import jax
import psutil
import pytest
from xdist.scheduler import LoadFileScheduling

from jax_attention.dispatch import compiled

quick_compiles.shorten_locations()
quick_compiles.reuse_mlir_contexts()
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("default")
MEMORY_OF_A_WORKER, MOST_MEMORY = 3 * 2**30, 3.5 * 2**30
"""Bytes. Two workers and what one file adds stay below 8 GB."""
GROWTH = 0.5 * 2**30
"""Bytes by which a worker must have grown since programs were forgotten, before they are forgotten again."""


def pytest_collection_finish():
    """Look for reference cycles less often.

    With PyTorch, transformers and JAX loaded every search goes through millions of objects. Those that are there
    before the first test are left out of it.
    """
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


class CommandsOnOneWorker(LoadFileScheduling):
    """As `--dist loadfile`, but all tests of commands go to one worker: they share runs that take seconds."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/cli" if file.startswith("tests/cli/") else file


def pytest_xdist_make_scheduler(config, log):
    """Which tests run in one process; other choices of `--dist` stay as they are."""
    return CommandsOnOneWorker(config, log) if config.option.dist == "loadfile" else None


@pytest.fixture
def x64():
    """True float64 for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def limit_of_memory():
    """Bytes beyond which compiled programs are forgotten, as the only entry of a list."""
    return [MEMORY_OF_A_WORKER]


@pytest.fixture(autouse=True, scope="module")
def bounded_memory(limit_of_memory):
    """Forget all compiled programs between files once a worker holds much memory.

    Programs of single operations are shared by many files, so forgetting them after every file would compile them
    again and again; never forgetting them fills gigabytes in `make test-all`. Memory that is freed in small pieces
    stays with the process: it must grow again before it is worth the second that this takes.
    """
    yield
    if resident_memory() > limit_of_memory[0]:
        jax.clear_caches()
        gc.collect()
        limit_of_memory[0] = min(resident_memory() + GROWTH, MOST_MEMORY)


def resident_memory() -> int:
    """Bytes of this process."""
    return psutil.Process().memory_info().rss


@pytest.fixture(autouse=True)
def nothing_remembered_from_before_a_patch(request):
    """Traces are kept for equal rules and shapes, which would not notice that a test patches something."""
    patches = "monkeypatch" in request.fixturenames
    if patches:
        compiled._run.clear_cache()
    yield
    if patches:
        compiled._run.clear_cache()
