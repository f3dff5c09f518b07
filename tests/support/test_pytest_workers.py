"""Workers drop compiled programs when memory grows, not after every file; tests of commands share a worker."""

from __future__ import annotations

import pytest

from tests.support import pytest_workers
from tests.support.pytest_workers import GIB, CommandsOnOneWorker, CompiledPrograms


@pytest.fixture
def resident(monkeypatch):
    """The memory that the worker reports, as the only entry of a list; no program is really dropped."""
    memory = [0.0]
    monkeypatch.setattr(pytest_workers, "resident_memory", lambda: memory[0])
    monkeypatch.setattr(pytest_workers.jax, "clear_caches", lambda: None)
    # A real collection takes seconds in a worker that holds millions of objects.
    monkeypatch.setattr(pytest_workers.gc, "collect", lambda: None)
    return memory


def test_programs_are_dropped_again_only_after_memory_grew(resident):
    """Memory stays with the process: without this limit every file takes a second longer once a worker is large."""
    programs, dropped = CompiledPrograms(), []
    for resident[0] in (2.9 * GIB, 3.1 * GIB, 3.1 * GIB, 3.4 * GIB):
        dropped.append(programs.drop_if_large())
    assert dropped == [False, True, False, False]


def test_the_limits_of_two_workers_are_below_8_gb_together(resident):
    programs = CompiledPrograms()
    for resident[0] in (3.3 * GIB, 3.6 * GIB, 3.6 * GIB):
        programs.drop_if_large()
    assert programs.limit == CompiledPrograms.MAX_LIMIT
    assert 2 * programs.limit < 8e9


def test_commands_share_a_worker():
    scheduler = object.__new__(CommandsOnOneWorker)
    names = ("tests/cli/test_a.py::test[x]", "tests/cli/test_b.py::test", "tests/nn/test_a.py::test")
    assert [scheduler._split_scope(name) for name in names] == ["tests/cli", "tests/cli", "tests/nn/test_a.py"]
