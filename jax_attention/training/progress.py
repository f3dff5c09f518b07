"""Display of a training run: live on a terminal, plain lines everywhere else; and a meter of its speed."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TextIO

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.core.output import Output, for_reader, print_loss
from jax_attention.core.text import printable


class Progress(Protocol):
    """Methods that `fit` calls on a display."""

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        """Show the number of updates done, and metrics by name."""

    def message(self, text: str) -> None:
        """Show a text that stays: an evaluation, a sample, the reason for stopping."""

    def close(self) -> None:
        """Restore the terminal."""


def progress(total: int, *, stream: TextIO | None = None, every: float = 5.0) -> Progress:
    """Make a display: live if `stream` is a terminal, plain lines if it is a pipe, a file or a dumb terminal.

        step 200/2000 | loss 2.4310 | 3.507 bits/byte | 31.2k tokens/s | 41% of peak | 1:12 left

    Args:
        total: the number of steps of the whole run.
        stream: the stream to write to; standard output if None.
        every: the least number of seconds between plain lines; 0 writes all. Messages are always written.

    Returns:
        An object with `update(step, values)`, `message(text)` and `close()`. Of the values it shows `loss`,
        `bits_per_byte`, `tokens_per_second`, `utilization` and `seconds_left`, as far as they are there.

    Raises:
        ValueError: if `total` or `every` is negative.
        TypeError: if `total` is not an int.
        ImportError: on a terminal, if rich is not installed.

    Example:
        >>> import io
        >>> from jax_attention import training
        >>> out = io.StringIO()
        >>> show = training.progress(100, stream=out)
        >>> show.update(20, {"loss": 2.5, "tokens_per_second": 31_234.0, "seconds_left": 72.0})
        >>> out.getvalue()
        'step 20/100 | loss 2.5000 | 31.2k tokens/s | 1:12 left\\n'

    Reference:
        https://rich.readthedocs.io/en/stable/progress.html
    """
    check_int("total", total, 0, "It is the number of steps of the run.")
    fail_unless(every >= 0, f"every: expected seconds >= 0, got {every}. 0 writes every line.")
    # A display must not end a training: a lost reader or a full disk is reported at the end.
    stream = Output(sys.stdout if stream is None else stream, "standard output" if stream is None else "progress")
    # Not left to rich, which would write colours into a pipe too where FORCE_COLOR or TTY_COMPATIBLE is set.
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return _LiveProgress(total, stream)
    return _PlainProgress(total, stream, every)


def summary(values: Mapping[str, Any]) -> str:
    """Format the most important metrics as one line."""
    formats = {
        "loss": lambda x: f"loss {x:.4f}",
        "bits_per_byte": lambda x: f"{x:.3f} bits/byte",
        "tokens_per_second": lambda x: f"{_abbreviate(x)} tokens/s",
        "utilization": lambda x: f"{x:.0%} of peak",
        "seconds_left": lambda x: f"{_format_time(x)} left",
    }
    return " | ".join(form(float(values[name])) for name, form in formats.items() if values.get(name) is not None)


def _abbreviate(x: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if x >= size:
            return f"{x / size:.1f}{letter}"
    return f"{x:.0f}"


def _format_time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _PlainProgress:
    def __init__(self, total: int, stream: Output, every: float):
        self.total, self.stream, self.every = total, stream, every
        self.last = -math.inf

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.message(" | ".join(part for part in (f"step {step}/{self.total}", summary(values)) if part))

    def message(self, text: str) -> None:
        self.stream.write(for_reader(text, self.stream) + "\n")

    def close(self) -> None:
        print_loss(self.stream)


class _LiveProgress:
    def __init__(self, total: int, stream: Output):
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        except ImportError as error:
            raise ImportError(
                "progress: expected the package rich for a display on a terminal, got none. Install it: pip install "
                "'jax_attention[train]', or pipe the output through cat for plain lines."
            ) from error
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[shown]}"))
        self.stream, self.console = stream, Console(file=stream, force_terminal=True)
        self.display = Progress(*columns, console=self.console, refresh_per_second=4)
        self.task = self.display.add_task("", total=total, shown="compiling")
        self.display.start()

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        self.display.update(self.task, completed=step, shown=summary(values))

    def message(self, text: str) -> None:
        self.console.print(printable(text), markup=False, highlight=False, emoji=False)

    def close(self) -> None:
        self.display.stop()
        print_loss(self.stream)


class Meter:
    """Meter of the speed of a run: tokens per second, utilisation, time left.

        tokens/s    = tokens since the last reading / seconds spent training since then
        utilization = tokens/s * flops_per_token / peak
        bits/byte   = loss / ln 2 / bytes_per_token

    Compilation (everything before `start`) and pauses (evaluation, samples, checkpoints) do not count as training;
    the time left includes pauses, by the average so far.

    Args:
        flops_per_token: from `train_flops`; None leaves utilisation out.
        peak: floating-point operations per second, from `matmul_peak`; None leaves utilisation out.
        bytes_per_token: UTF-8 bytes of text per token, on average; None leaves bits per byte out.

    Returns:
        An object with `start(step)`, `count(step, tokens)`, `paused()` and `read(total, loss)`.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> from jax_attention import training
        >>> meter = training.Meter(bytes_per_token=4.0)
        >>> meter.start(0)
        >>> meter.count(1, tokens=256)
        >>> round(meter.read(total=10, loss=2.772589)["bits_per_byte"], 3)
        1.0
    """

    def __init__(
        self,
        flops_per_token: float | None = None,
        peak: float | None = None,
        bytes_per_token: float | None = None,
    ):
        options = {"flops_per_token": flops_per_token, "peak": peak, "bytes_per_token": bytes_per_token}
        for name, x in options.items():
            fail_unless(x is None or x > 0, f"{name}: expected a positive number, got {x}. None leaves it out.")
        self.flops_per_token, self.peak, self.bytes_per_token = flops_per_token, peak, bytes_per_token
        self.start(0)

    def start(self, step: int) -> None:
        """Start the clock after compilation, when `step` updates are done."""
        self.first = self.step = step
        self.tokens, self.pauses = 0, 0.0
        self.began = self.last = time.perf_counter()

    def count(self, step: int, tokens: int) -> None:
        """Record that `step` updates are done, the newest of them with `tokens` tokens."""
        self.step, self.tokens = step, self.tokens + tokens

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Context whose time does not count as training."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.pauses += time.perf_counter() - start

    def read(self, total: int, loss: float) -> dict[str, float]:
        """Metrics since the last reading, by name; those not known yet are left out."""
        now = time.perf_counter()
        seconds = now - self.last - self.pauses
        metrics = {}
        if self.tokens and seconds > 0:
            metrics["tokens_per_second"] = self.tokens / seconds
            if self.flops_per_token is not None and self.peak is not None:
                metrics["utilization"] = metrics["tokens_per_second"] * self.flops_per_token / self.peak
        if self.step > self.first:
            metrics["seconds_left"] = (now - self.began) / (self.step - self.first) * (total - self.step)
        if self.bytes_per_token is not None:
            metrics["bits_per_byte"] = loss / math.log(2) / self.bytes_per_token
        self.last, self.tokens, self.pauses = now, 0, 0.0
        return metrics
