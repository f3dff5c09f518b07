"""The way out of all text: streams that survive a lost reader, a full disk and letters that they cannot encode."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from jax_attention.core.text import printable


class Output(io.TextIOBase):
    """A text stream that writes to another one, and never fails because of a letter.

    Characters that the encoding lacks are written as escapes. After the first failed write (the reader went away, the
    disk is full, the stream is closed) everything else is dropped and counted.

    Args:
        stream: the stream to write to; None drops everything.
        name: name of the stream for messages.
        required: raise the first failure, as the caller has nothing to do without a reader.
    """

    def __init__(self, stream: Any, name: str = "output", *, required: bool = False):
        super().__init__()
        self.stream, self.name, self.required = stream, name, required
        self.failure: OSError | None = None
        self.lost_lines = 0

    def write(self, text: str) -> int:
        """Write text and flush it."""
        if self.stream is not None and self.failure is None:
            try:
                self.stream.write(encodable(text, self.encoding))
                self.stream.flush()
            except (OSError, ValueError) as error:  # a closed file raises ValueError
                self._fail(error)
        if self.failure is not None:
            self.lost_lines += text.count("\n")
        return len(text)

    def flush(self) -> None:
        """Do nothing, as every write is flushed."""

    @property
    def encoding(self) -> str:
        """Encoding of the stream; UTF-8 for one that has none."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        try:
            return self.stream is not None and self.stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """File descriptor of the stream."""
        if self.stream is None:
            raise io.UnsupportedOperation("fileno")
        return self.stream.fileno()

    def writable(self) -> bool:
        """Whether `write` may be called: always."""
        return True

    def loss(self) -> str | None:
        """What was lost, as one line, or None.

        >>> Output(None).loss()
        """
        if self.failure is None:
            return None
        count = max(self.lost_lines, 1)
        return f"{self.name}: {count:,} line{'' if count == 1 else 's'} lost ({self.failure.strerror})"

    def _fail(self, error: OSError | ValueError) -> None:
        closed = OSError(errno.EBADF, os.strerror(errno.EBADF))
        self.failure = error if isinstance(error, OSError) and error.errno else closed
        self.failure.filename = self.name
        _discard(self.stream)
        if self.required:
            raise self.failure


def encodable(text: str, encoding: str) -> str:
    r"""The text, with escapes in place of characters that the encoding lacks.

    >>> encodable("a天", "ascii")
    'a\\u5929'
    """
    return text.encode(encoding, "backslashreplace").decode(encoding)


def for_reader(text: str, stream: Any) -> str:
    """Generated text for a stream: as it is for files and pipes, without control characters for a terminal."""
    return printable(text) if stream.isatty() else text


def print_line(text: str = "") -> None:
    """Write one line on standard output, its control characters as escapes."""
    sys.stdout.write(printable(text) + "\n")


def print_text(text: str, *, raw: bool = False) -> None:
    """Write generated text on standard output; `raw` leaves control characters as they are on a terminal too."""
    sys.stdout.write(text if raw else for_reader(text, sys.stdout))


def print_error(text: str) -> None:
    """Write one line on standard error, its control characters as escapes."""
    sys.stderr.write(printable(text) + "\n")


def print_loss(output: Output) -> None:
    """Write on standard error what a stream lost, if it did."""
    if output.loss() is not None:
        print_error(output.loss())


@contextlib.contextmanager
def safe_streams() -> Iterator[Output]:
    """Replace standard output and standard error by safe streams; yield standard output.

    A failure of standard output is raised until its `required` is set to False. One of standard error never is.
    """
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    output = Output(sys.stdout, "standard output", required=True)
    sys.stdout, sys.stderr = output, Output(sys.stderr, "standard error")
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before


def _open_closed_descriptors() -> None:
    """Open the null device in place of a closed standard stream.

    Otherwise the next file that is opened, such as a checkpoint, would get its number, and what native code writes on
    standard output would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _discard(stream: Any) -> None:
    """Send what is left of a broken standard stream to the null device.

    Python flushes standard output and standard error when it exits. What is still in their buffers would fail again
    then, with "Exception ignored in ..." and exit status 120.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream in memory has no descriptor
        number = stream.fileno()
        if number in (1, 2):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
