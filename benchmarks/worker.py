"""One process per competitor: it prepares a case, waits on a pipe while another is timed, and times what it is told.

Leaves out what competes. A module with competitors has `MAKERS`: name -> function from a case to its `Runs`. It is
called in the competitor's process only, so each loads one framework and no thread pool disturbs another.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

MEMORY = 6 * 2**30
"""Bytes of temporary memory; what needs more is not run."""
PATIENCE = 5.0
"""Seconds of timed calls for one competitor and case; a first call that takes longer is the only one."""


class Prepared(NamedTuple):
    """Something to be timed: what runs it, or why it cannot run; and XLA's temporary memory, where XLA compiled it."""

    run: Callable[[], Any] | None
    missing: str | None = None
    mib: float | None = None


Runs = dict[str, Prepared]

WARM, LONG = 0.15, 0.1
"""Seconds of calls before a short one is timed, and while: threads of the competitor before may spin for some time, and
a process that has waited finds its caches cold."""


def compiled(function: Callable, *arrays: Any) -> Prepared:
    """A function of JAX, compiled and blocking, unless it needs too much memory."""
    import jax

    program = jax.jit(function).lower(*arrays).compile()
    needed = program.memory_analysis().temp_size_in_bytes
    mib = round(needed / 2**20, 1)
    if needed > MEMORY:
        return Prepared(None, f"needs {needed / 2**30:.1f} GiB of temporary memory", mib)
    return Prepared(lambda: jax.block_until_ready(program(*arrays)), mib=mib)


def serve(module: str, name: str) -> None:
    """The life of a worker: an order on every line of stdin, its answer on a line of stdout."""
    make, runs = importlib.import_module(module).MAKERS[name], {}
    for line in sys.stdin:
        order = json.loads(line)
        if "case" in order:
            runs.clear()  # before the next case takes its memory
            runs.update(_prepare(make, order["case"]))
            answer: object = {label: {"missing": x.missing, "MiB": x.mib} for label, x in runs.items()}
        elif "time" in order:
            answer = _time(runs[order["time"]].run, order["warm"])
        elif "save" in order:
            answer = np.save(order["to"], _numbers(runs[order["save"]].run()))
        else:
            answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps(answer), flush=True)


def _prepare(make: Callable[..., Runs], case: Sequence) -> Runs:
    """Its runs; where there are none, the reason under the name "all"."""
    try:
        return make(*case)
    except ImportError as error:
        return {"all": Prepared(None, f"not installed: {error.name}")}
    except (NotImplementedError, RuntimeError, ValueError) as error:
        return {"all": Prepared(None, f"{type(error).__name__}: {str(error).splitlines()[0]}")}


def _numbers(x: Any) -> np.ndarray:
    """An array, or several one after the other."""
    return np.concatenate([np.ravel(part) for part in x]) if isinstance(x, (tuple, list)) else np.asarray(x)


def _time(run: Callable[[], Any], warm: bool) -> float:
    """Seconds of one call; after others, and the mean of several, if `warm`."""
    if warm:
        _calls(run, WARM)
    return _calls(run, LONG if warm else 0)


def _calls(run: Callable[[], Any], seconds: float) -> float:
    """The mean time of as many calls as it takes, one at least."""
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < seconds:
        run()
        count += 1
    return (time.perf_counter() - start) / count


class Worker:
    """A process that waits for orders."""

    def __init__(self, module: str, name: str):
        command = [sys.executable, "-m", "benchmarks.worker", module, name]
        self.name = name
        self.facts: dict[str, dict] = {}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _send(self, **order: object) -> None:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: its process ended with code {self.process.wait()}.")
        return json.loads(line)

    def missing(self, label: str) -> str | None:
        """Why it cannot run `label` of its case, or None if it can."""
        facts = self.facts.get(label) or self.facts.get("all") or {"missing": "has no such pass"}
        return facts["missing"]

    def seconds(self, label: str, warm: bool = False) -> float:
        """Of one call."""
        self._send(time=label, warm=warm)
        return self._answer()

    def output(self, label: str) -> np.ndarray:
        """What `label` returns."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "output.npy")
            self._send(save=label, to=path)
            self._answer()
            return np.load(path)

    def peak(self) -> float:
        """MiB that the process has held at most."""
        self._send(peak=True)
        return self._answer()

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.wait()


def prepare(workers: Sequence[Worker], case: Sequence) -> None:
    """All prepare the same case at the same time: compiling is not measured."""
    for worker in workers:
        worker._send(case=list(case))
    for worker in workers:
        worker.facts = worker._answer()


def largest_difference(workers: Sequence[Worker], label: str, tolerance: float) -> float:
    """Between the outputs of all that can run, and the first's, over 1 and its largest number; refuses to go on where
    it is too large.
    """
    able = [worker for worker in workers if worker.missing(label) is None]
    first = able[0].output(label)
    size = 1 + np.abs(first).max()
    errors = {worker.name: float(np.abs(worker.output(label) - first).max() / size) for worker in able[1:]}
    if any(not error <= tolerance for error in errors.values()):
        raise SystemExit(f"outputs differ from those of {able[0].name}: {errors} ({label}); nothing was timed.")
    return max(errors.values(), default=0.0)


def in_turn(runs: Sequence[tuple[Worker, str]], rounds: int) -> list[list[float]]:
    """Seconds of every round of each run; every round times each in turn. The slow get fewer rounds, but one."""
    first = [worker.seconds(label) for worker, label in runs]
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds):
        for (worker, label), start, found in zip(runs, first, seconds, strict=True):
            if turn < int(PATIENCE / start):
                found.append(worker.seconds(label, warm=start < WARM))
    return [found or [start] for found, start in zip(seconds, first, strict=True)]


def compare(workers: Sequence[Worker], label: str, rounds: int) -> dict:
    """Medians in milliseconds and peers over the first worker."""
    able = [worker for worker in workers if worker.missing(label) is None]
    found = in_turn([(worker, label) for worker in able], rounds)
    medians = {worker.name: statistics.median(x) for worker, x in zip(able, found, strict=True)}
    own = medians[workers[0].name]
    names = [worker.name for worker in workers]
    result: dict = {
        "ms": {name: round(1e3 * medians[name], 2) if name in medians else None for name in names},
        "ratio": {name: round(medians[name] / own, 2) if name in medians else None for name in names[1:]},
        "rounds": {worker.name: len(x) for worker, x in zip(able, found, strict=True)},
    }
    missing = {worker.name: worker.missing(label) for worker in workers if worker not in able}
    return result | ({"missing": missing} if missing else {})


if __name__ == "__main__":
    serve(*sys.argv[1:])
