"""Stand-ins for standard streams: one that fails, one with a narrow encoding, one that is a terminal."""

from __future__ import annotations

import io


class FailingStream(io.StringIO):
    """A stream that fails from the first text on that contains `start`, and before on letters that it lacks."""

    def __init__(self, make_error, start="", terminal=False, encoding="utf-8"):
        super().__init__()
        self.make_error, self.start, self.terminal, self.encoding_name = make_error, start, terminal, encoding
        self.failed = False

    @property
    def encoding(self):
        return self.encoding_name

    def isatty(self):
        return self.terminal

    def write(self, text):
        text.encode(self.encoding)
        self.failed = self.failed or self.start in text
        if self.failed:
            raise self.make_error()
        return super().write(text)


class Terminal(io.StringIO):
    """A stream in memory that says that it is a terminal."""

    def isatty(self):
        return True


def encoded_stream(encoding):
    """A text stream in memory that refuses what its encoding lacks; its bytes are in `.buffer`."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)
