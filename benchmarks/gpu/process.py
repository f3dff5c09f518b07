"""Worker processes for JAX and PyTorch, so that neither holds memory while the other runs; they wait on pipes."""

from __future__ import annotations

import gc
import json
import os
import select
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.cases import Case
from benchmarks.gpu.competitors import COMPETITORS, Runs


class Worker:
    """A worker process, seen from the parent.

    A process that dies, or hangs for `limit` seconds, is replaced, and its request has failed.
    """

    def __init__(self, library: str, limit: float = 150):
        self.library, self.limit, self.starts = library, limit, 0
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "benchmarks.gpu", "--work", self.library]
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.starts += 1

    def request(self, **request: Any) -> dict:
        """Send a request and return the answer, or the reason of the failure."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            ready = select.select([self.process.stdout], [], [], self.limit)[0]
            line = self.process.stdout.readline() if ready else None
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        self.process.kill()
        code = self.process.wait()
        self._start()
        return {"failed": f"no answer in {self.limit} s" if line is None else f"the process ended with code {code}"}

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def serve(library: str) -> None:
    """Loop of a worker process: each line of stdin is a request, each line of stdout an answer, both in JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of compilers goes to stderr, so that it is not read as an answer
    prepared: dict[str, Runs] = {}
    for line in sys.stdin:
        with warnings.catch_warnings(record=True) as raised:
            try:
                answer = _answer(library, prepared, **json.loads(line))
            except Exception as error:
                reasons = dict.fromkeys(str(warning.message).split(" (Triggered")[0] for warning in raised)
                answer = {"failed": " ".join([f"{type(error).__name__}: {error}", *reasons])[:1200]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(library: str, prepared: dict[str, Runs], what: str, **details: Any) -> dict:
    if what == "about":
        return about(library)
    if what == "forget":
        prepared.clear()
        _free(library)
        return {}
    if what == "prepare":
        return _prepare(prepared, **details)
    return _time(prepared[details["name"]], what, details["times"])


def _prepare(prepared: dict[str, Runs], name: str, case: list, base: str) -> dict:
    runs = COMPETITORS[name][1](Case(*case))
    arrays = runs.numpy(runs.both())
    difference = 0.0
    if not Path(base).exists():
        np.savez(base, *arrays)
    else:
        with np.load(base) as reference:
            pairs = list(zip(arrays, reference.values(), strict=True))
            difference = max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in pairs)
    seconds = {}
    for what in ("forward", "forward and backward"):
        _time(runs, what, 1)
        seconds[what] = _time(runs, what, 1)["seconds"]
    prepared[name] = runs
    return {"difference": difference, "memory": runs.memory, "seconds": seconds}


def _time(runs: Runs, what: str, times: int) -> dict:
    """Mean seconds of several runs with one wait at the end."""
    run = runs.forward if what == "forward" else runs.both
    start = time.perf_counter()
    for _ in range(times):
        result = run()
    runs.wait(result)
    return {"seconds": (time.perf_counter() - start) / times}


def _free(library: str) -> None:
    gc.collect()
    if library == "jax":
        import jax

        jax.clear_caches()
    else:
        import torch

        torch.cuda.empty_cache()


def about(library: str) -> dict:
    """Versions of the framework, and the device."""
    if library == "torch":
        import torch

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        return {"torch": torch.__version__, "cuda of torch": torch.version.cuda, "device of torch": name}
    import jax
    import jaxlib

    return {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "device": jax.devices()[0].device_kind}


def driver_version() -> str | None:
    """Version of the NVIDIA driver, or None."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
