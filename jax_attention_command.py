"""Entry point of the command `jax-attention`: signals are handled before the first slow import.

It is outside of the package, because importing anything from the package imports JAX first, which takes a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
_ending = threading.Lock()


def main() -> None:
    """Run the command line and end the process with its exit status."""
    watch_signals()
    from jax_attention.cli.__main__ import main as run

    sys.exit(run())


def watch_signals() -> None:
    """End the process on a stop signal, with one line and status 128 + n, also in the middle of an import or a save.

    While a training runs, `fit` has handlers of its own in place of `end`: then the first signal is theirs, and the
    second one ends the process. Signals that are ignored, as SIGHUP under `nohup`, stay ignored.
    """
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
    # Python runs handlers between two bytecodes of the main thread, which may be inside XLA for minutes. The numbers of
    # signals are also written to a socket at once, where a thread reads them.
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reads, writes), daemon=True).start()


def _watch(reads: socket.socket, writes: socket.socket) -> None:
    received = 0
    while True:
        for number in reads.recv(64):
            if number in STOPPING:
                received += 1
                if received > 1 or signal.getsignal(number) is end:
                    end(number, None)


def end(number: int, frame: FrameType | None) -> None:
    """End the process now. What is complete on the disk stays; no other thread gets to print a traceback."""
    if not _ending.acquire(blocking=False):
        return
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout is not None and sys.stdout.isatty():
            os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # the live display hides the cursor
    with contextlib.suppress(OSError):
        os.write(2, f"jax-attention: {signal.Signals(number).name}: ended at once\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()
