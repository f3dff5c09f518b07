"""Bounds on the tests of hostile files: 10 seconds and 1 GiB each."""

from __future__ import annotations

import resource
import time

import pytest

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
