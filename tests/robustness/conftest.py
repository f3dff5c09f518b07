"""A server of commands for the drills, and bounds on the tests of hostile files: 10 seconds and 1 GiB each."""

from __future__ import annotations

import resource
import time

import pytest

from tests.cli.quick_run import TEXT
from tests.robustness.server import Server

SECONDS, KIBIBYTES = 10, 2**20


@pytest.fixture(autouse=True)
def bounded(request):
    """A reader that a file could keep busy or fill the memory with fails here; compiling a model counts as idle."""
    if not request.module.__name__.rpartition(".")[2].startswith("test_foreign"):
        yield
        return
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < KIBIBYTES
    # A slow test has many inputs.
    assert request.node.get_closest_marker("slow") is not None or time.process_time() - began < SECONDS


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Commands in forked children, and a text in their folder."""
    server = Server(tmp_path_factory.mktemp("drills"), tmp_path_factory.mktemp("cache"))
    (server.folder / "fox.txt").write_text(TEXT, encoding="utf-8")
    yield server
    server.close()
