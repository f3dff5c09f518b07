"""Runs commands in forked children of a process that has imported everything, and kills them where a test says.

    python command_server.py  <  one JSON object per line  {"arguments": [...], "below": folder, "kill_at": n or null,
                                                            "limits": {"FSIZE": bytes}}
                              >  one JSON object per line  {"status": s, "calls": n, "printed": text}

`calls` counts the file-system calls of Python below a folder that change something; with `kill_at` the child gets
SIGKILL immediately before that call, which is also immediately after the one before.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import warnings

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.copyfile"}


def is_change(event: str, arguments: tuple) -> bool:
    if event == "open":
        _, mode, flags = arguments
        return any(letter in (mode or "") for letter in "wxa+") or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))
    return event in CHANGES


def run_child(request: dict, counter: int, output: int) -> None:
    calls = 0

    def audit(event: str, arguments: tuple) -> None:
        nonlocal calls
        if not is_change(event, arguments) or request["below"] not in str(arguments[0]):
            return
        calls += 1
        if calls == request["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
        os.pwrite(counter, calls.to_bytes(8, "little"), 0)

    for number in (1, 2):
        os.dup2(output, number)
    for name, limit in request["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    sys.addaudithook(audit)
    from jax_attention.cli.__main__ import main

    status = main(request["arguments"])
    sys.stdout.flush()
    os._exit(status)


def serve(answers: int) -> None:
    import matplotlib.figure  # noqa: F401 - the slow part, once
    from orbax.checkpoint import v1  # noqa: F401

    import jax_attention.cli.train  # noqa: F401

    for line in sys.stdin:
        with tempfile.TemporaryFile() as counter, tempfile.TemporaryFile() as output:
            child = os.fork()
            if child == 0:
                run_child(json.loads(line), counter.fileno(), output.fileno())
            _, status = os.waitpid(child, 0)
            calls = int.from_bytes(os.pread(counter.fileno(), 8, 0), "little")
            output.seek(0)
            answer = {"status": os.waitstatus_to_exitcode(status), "calls": calls, "printed": output.read().decode()}
        os.write(answers, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # about forks: no computation has begun in this process
    serve(os.dup(1))
