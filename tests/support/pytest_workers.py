"""Schedule and memory of the pytest-xdist worker processes."""

from __future__ import annotations

import gc

import jax
import psutil
from xdist.scheduler import LoadFileScheduling

GIB = 2**30


class CommandsOnOneWorker(LoadFileScheduling):
    """`--dist loadfile`, except that one worker runs all tests of commands, which share runs that take seconds."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/cli" if file.startswith("tests/cli/") else file


def collect_garbage_rarely() -> None:
    """Exclude imported modules from garbage collection, and collect once in 100,000 new objects.

    With PyTorch, transformers and JAX loaded a collection visits millions of objects, and JAX adds a callback to each
    collection. At Python's default threshold of 700, collections took 10 % of the time of the tests; now they take 3 %.
    """
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


class CompiledPrograms:
    """The compiled programs of a worker, which are dropped when the process uses much memory.

    Many files share programs of single operations, so dropping them after every file would compile them again and
    again; never dropping them fills gigabytes in `make test-all`. Memory that is freed in small pieces stays with the
    process, so it must grow again before dropping is worth the second that it takes.
    """

    FIRST_LIMIT, GROWTH, MAX_LIMIT = 3 * GIB, 0.5 * GIB, 3.5 * GIB
    """Limits in bytes, with which two workers stay below 8 GB, including the memory that one file adds."""

    def __init__(self) -> None:
        self.limit = self.FIRST_LIMIT

    def drop_if_large(self) -> bool:
        """Drop the programs if the memory is above the limit. Called between two files; returns whether it did."""
        if resident_memory() <= self.limit:
            return False
        jax.clear_caches()
        gc.collect()
        self.limit = min(resident_memory() + self.GROWTH, self.MAX_LIMIT)
        return True


def resident_memory() -> int:
    """Resident memory of this process in bytes."""
    return psutil.Process().memory_info().rss
