"""Orderly stop: SIGTERM, SIGINT and SIGHUP set a flag that the training loop checks between steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import FrameType, TracebackType
from typing import Any

STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
"""Signals that stop a run: from a scheduler, from Ctrl-C, from a terminal that was closed (not on Windows)."""

_active: ContextVar[StopSignals | None] = ContextVar("active", default=None)
"""The block that the running thread is in."""


class StopRequested(Exception):
    """Raised by a long evaluation when a signal has come: what it measured so far is of no use."""


def raise_if_stopping() -> None:
    """Raise `StopRequested` inside a `StopSignals` block that has received a signal."""
    stop = _active.get()
    if stop is not None and stop.received is not None:
        raise StopRequested(stop.received)


class StopSignals:
    """Context in which the first signal only sets `received`; the second one acts as before the block.

        first signal   ->  received = "SIGTERM", "SIGINT" or "SIGHUP"
        second signal  ->  the earlier handler: KeyboardInterrupt for SIGINT, the end of the process for the others

    Python delivers signals to the main thread only, so in another thread this does nothing. The earlier handlers are
    restored at the end. A signal that was ignored before, as SIGHUP under `nohup`, stays ignored.

    Returns:
        A context manager with the attribute `received`: None or the name of the first signal.

    Raises:
        KeyboardInterrupt: inside the block, on a second signal that is SIGINT.

    Example:
        >>> from jax_attention.training.signals import StopSignals
        >>> with StopSignals() as stop:
        ...     print("go on" if stop.received is None else stop.received)
        go on

    Reference:
        https://docs.python.org/3/library/signal.html#note-on-signal-handlers-and-exceptions
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[int, Any] = {}
        self._token: Token | None = None

    def __enter__(self) -> StopSignals:
        self._token = _active.set(self)
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) == signal.SIG_IGN:
                    continue  # A background job, started so that Ctrl-C or a hangup does not reach it.
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _active.reset(self._token)
        for number, handler in self._before.items():
            signal.signal(number, _restorable(handler))
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number).name
            return
        handler = _restorable(self._before[number])
        if callable(handler):
            handler(number, frame)
            return
        signal.signal(number, handler)
        os.kill(os.getpid(), number)


def _restorable(handler: Any) -> Callable | signal.Handlers:
    """A handler for `signal.signal`; None means one that was not installed from Python and cannot be restored."""
    return signal.SIG_DFL if handler is None else handler
