"""One process per competitor: it prepares a case, waits on a pipe while others are timed, and times calls on request.

The competitors are defined elsewhere: a module of competitors has `MAKERS`, from a name to a function from a case to
its `Runs`. That function runs only in the competitor's process, so each process loads one framework and no thread pool
disturbs another.
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

MAX_TEMPORARY_BYTES = 6 * 2**30
"""A program that needs more temporary memory than this is compiled but not run."""
MAX_SECONDS = 5.0
"""Seconds of timed calls per competitor and case. If the first call takes longer, it is the only one."""


class PreparedCall(NamedTuple):
    """A call to time, or the reason why it cannot run; and its temporary memory, if XLA compiled it."""

    run: Callable[[], Any] | None
    missing: str | None = None
    mib: float | None = None


Runs = dict[str, PreparedCall]

WARMUP_SECONDS, TIMING_SECONDS = 0.15, 0.1
"""Seconds of untimed calls before a short call is timed, and of the timed calls: threads of the previous competitor may
still spin, and the caches of a process that has waited are cold."""


def compile_jax(function: Callable, *arrays: Any) -> PreparedCall:
    """Compile a JAX function into a blocking call, unless it needs too much memory."""
    import jax

    program = jax.jit(function).lower(*arrays).compile()
    needed = program.memory_analysis().temp_size_in_bytes
    mib = round(needed / 2**20, 1)
    if needed > MAX_TEMPORARY_BYTES:
        return PreparedCall(None, f"needs {needed / 2**30:.1f} GiB of temporary memory", mib)
    return PreparedCall(lambda: jax.block_until_ready(program(*arrays)), mib=mib)


def serve(module: str, name: str) -> None:
    """Loop of a worker process: each line of stdin is a request, each line of stdout an answer, both in JSON."""
    make, runs = importlib.import_module(module).MAKERS[name], {}
    for line in sys.stdin:
        request = json.loads(line)
        if "case" in request:
            runs.clear()  # frees the arrays of this case before the next is prepared
            runs.update(_prepare(make, request["case"]))
            answer: object = {label: {"missing": x.missing, "MiB": x.mib} for label, x in runs.items()}
        elif "time" in request:
            answer = _time(runs[request["time"]].run, request["warm"])
        elif "save" in request:
            answer = np.save(request["to"], _flatten(runs[request["save"]].run()))
        else:
            answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps(answer), flush=True)


def _prepare(make: Callable[..., Runs], case: Sequence) -> Runs:
    """The calls of a case; if it cannot be prepared, the reason under the name "all"."""
    try:
        return make(*case)
    except ImportError as error:
        return {"all": PreparedCall(None, f"not installed: {error.name}")}
    except (NotImplementedError, RuntimeError, ValueError) as error:
        return {"all": PreparedCall(None, f"{type(error).__name__}: {str(error).splitlines()[0]}")}


def _flatten(x: Any) -> np.ndarray:
    """One array as it is; several arrays concatenated."""
    return np.concatenate([np.ravel(part) for part in x]) if isinstance(x, (tuple, list)) else np.asarray(x)


def _time(run: Callable[[], Any], warm: bool) -> float:
    """Seconds of one call; with `warm`, the mean over several calls after a warm-up."""
    if warm:
        _mean_seconds(run, WARMUP_SECONDS)
    return _mean_seconds(run, TIMING_SECONDS if warm else 0)


def _mean_seconds(run: Callable[[], Any], seconds: float) -> float:
    """Mean seconds of a call, over at least `seconds` of calls and at least one call."""
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < seconds:
        run()
        count += 1
    return (time.perf_counter() - start) / count


class Worker:
    """A competitor's process, seen from the parent."""

    def __init__(self, module: str, name: str):
        command = [sys.executable, "-m", "benchmarks.worker", module, name]
        self.name = name
        self.facts: dict[str, dict] = {}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _send(self, **request: object) -> None:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def _receive(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: its process ended with code {self.process.wait()}.")
        return json.loads(line)

    def missing(self, label: str) -> str | None:
        """The reason why the call `label` of the case cannot run, or None if it can."""
        facts = self.facts.get(label) or self.facts.get("all") or {"missing": "has no such pass"}
        return facts["missing"]

    def seconds(self, label: str, warm: bool = False) -> float:
        """Seconds of one call of `label`."""
        self._send(time=label, warm=warm)
        return self._receive()

    def output(self, label: str) -> np.ndarray:
        """The output of the call `label`."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "output.npy")
            self._send(save=label, to=path)
            self._receive()
            return np.load(path)

    def peak(self) -> float:
        """Peak memory of the process in MiB."""
        self._send(peak=True)
        return self._receive()

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def prepare(workers: Sequence[Worker], case: Sequence) -> None:
    """Let all workers prepare the same case, at the same time; preparation is not measured."""
    for worker in workers:
        worker._send(case=list(case))
    for worker in workers:
        worker.facts = worker._receive()


def largest_difference(workers: Sequence[Worker], label: str, tolerance: float) -> float:
    """Largest difference of any output from that of the first worker, over 1 + its largest entry.

    Raises `SystemExit` above the tolerance: a wrong competitor must not be timed.
    """
    able = [worker for worker in workers if worker.missing(label) is None]
    first = able[0].output(label)
    size = 1 + np.abs(first).max()
    errors = {worker.name: float(np.abs(worker.output(label) - first).max() / size) for worker in able[1:]}
    if any(not error <= tolerance for error in errors.values()):
        raise SystemExit(f"outputs differ from those of {able[0].name}: {errors} ({label}); nothing was timed.")
    return max(errors.values(), default=0.0)


def time_in_turn(runs: Sequence[tuple[Worker, str]], rounds: int) -> list[list[float]]:
    """Seconds of each run in each round; a round times every run once. Slow runs get fewer rounds, at least one."""
    first = [worker.seconds(label) for worker, label in runs]
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds):
        for (worker, label), first_seconds, times in zip(runs, first, seconds, strict=True):
            if turn < int(MAX_SECONDS / first_seconds):
                times.append(worker.seconds(label, warm=first_seconds < WARMUP_SECONDS))
    return [times or [first_seconds] for times, first_seconds in zip(seconds, first, strict=True)]


def compare(workers: Sequence[Worker], label: str, rounds: int) -> dict:
    """Medians in milliseconds, and their ratios to that of the first worker."""
    able = [worker for worker in workers if worker.missing(label) is None]
    seconds = time_in_turn([(worker, label) for worker in able], rounds)
    medians = {worker.name: statistics.median(x) for worker, x in zip(able, seconds, strict=True)}
    reference = medians[workers[0].name]
    names = [worker.name for worker in workers]
    result: dict = {
        "ms": {name: round(1e3 * medians[name], 2) if name in medians else None for name in names},
        "ratio": {name: round(medians[name] / reference, 2) if name in medians else None for name in names[1:]},
        "rounds": {worker.name: len(x) for worker, x in zip(able, seconds, strict=True)},
    }
    missing = {worker.name: worker.missing(label) for worker in workers if worker not in able}
    return result | ({"missing": missing} if missing else {})


if __name__ == "__main__":
    serve(*sys.argv[1:])
