"""Orderly stop: SIGTERM and SIGINT set a flag that the training loop checks between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """Context in which the first SIGTERM or SIGINT only sets `received`, and a second SIGINT aborts at once.

        first signal   ->  received = "SIGTERM" or "SIGINT"
        second SIGINT  ->  KeyboardInterrupt, wherever the program is

    Python delivers signals to the main thread only, so in another thread this does nothing. The earlier handlers are
    restored at the end. A signal that was ignored before stays ignored.

    Returns:
        A context manager with the attribute `received`: None or the name of the first signal.

    Raises:
        KeyboardInterrupt: inside the block, on the second SIGINT.

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

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) == signal.SIG_IGN:
                    continue  # A background job, started so that Ctrl-C does not reach it.
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None means a handler that was not installed from Python: it cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number).name
