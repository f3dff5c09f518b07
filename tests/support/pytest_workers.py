"""How the processes of pytest-xdist divide the tests, and how they stay small and quick."""

from __future__ import annotations

import gc

import jax
import psutil
from xdist.scheduler import LoadFileScheduling

GIB = 2**30


class CommandsOnOneWorker(LoadFileScheduling):
    """As `--dist loadfile`, but all tests of commands go to one worker: they share runs that take seconds."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/cli" if file.startswith("tests/cli/") else file


def search_for_cycles_rarely() -> None:
    """Leave what is imported out of every search for reference cycles, and search once in 100,000 new objects.

    With PyTorch, transformers and JAX loaded a search goes through millions of objects, and JAX adds work of its own to
    each. At Python's own threshold of 700 they took a tenth of the time of the tests, now 3 %.
    """
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


class CompiledPrograms:
    """The programs that a worker has compiled, forgotten where it holds much memory.

    Programs of single operations are shared by many files, so forgetting them after every file would compile them again
    and again; never forgetting them fills gigabytes in `make test-all`. Memory that is freed in small pieces stays with
    the process: it must grow again before forgetting is worth the second that it takes.
    """

    FIRST, GROWTH, MOST = 3 * GIB, 0.5 * GIB, 3.5 * GIB
    """Bytes. Two workers and what one file adds stay below 8 GB."""

    def __init__(self) -> None:
        self.limit = self.FIRST

    def forget_if_large(self) -> bool:
        """Between two files; returns whether they were forgotten."""
        if resident_memory() <= self.limit:
            return False
        jax.clear_caches()
        gc.collect()
        self.limit = min(resident_memory() + self.GROWTH, self.MOST)
        return True


def resident_memory() -> int:
    """Bytes of this process."""
    return psutil.Process().memory_info().rss
