"""Tables of the time of the tests, from `results/suite.json`, for each pair of Python and jax versions."""

from __future__ import annotations

from benchmarks.markdown import table

SHOWN_FILES = 12
"""Rows of the table of test files."""


def tiers(pairs: dict) -> str:
    """Time and memory of each tier of the tests, on both supported pairs."""
    names = dict.fromkeys(tier for pair in pairs.values() for tier in pair["tiers"])
    header = ["command", "tests", *(f"{name}, jax {pair['versions']['jax']}" for name, pair in pairs.items()), "memory"]
    rows = []
    for tier in names:
        of_pairs = [pair["tiers"].get(tier) for pair in pairs.values()]
        measured = [figures for figures in of_pairs if figures]
        times = [figures and minutes(figures["seconds"]) for figures in of_pairs]
        peak = max(figures["peak_memory_gib"] for figures in measured)
        rows.append([f"`make {tier}`", f"{measured[0]['tests']:,}", *times, f"{peak:.1f} GiB"])
    return table(header, rows)


def slowest_files(pairs: dict) -> str:
    """The files in which `make test` spends most time: seconds of one worker."""
    files = {name: pair["tiers"]["test"]["files"] for name, pair in pairs.items()}
    first = next(iter(files.values()))
    seconds = lambda times, name: f"{times[name][1]:.1f}" if name in times else None  # noqa: E731
    rows = [[f"`{name}`", first[name][0], *(seconds(times, name) for times in files.values())] for name in first]
    return table(["file", "tests", *(f"{name}, s" for name in pairs)], rows[:SHOWN_FILES])


def minutes(seconds: float) -> str:
    """A duration such as `4 min 10 s`."""
    total = round(seconds)
    return f"{total // 60} min {total % 60} s"
