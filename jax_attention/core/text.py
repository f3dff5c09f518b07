"""Text of unknown origin in messages and on terminals: without control characters, and short."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

KEPT = "\n\t"
"""Control characters that move the cursor only forwards."""
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of Unicode: control, format (directions of text), surrogate, separators of lines and paragraphs."""
JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji are written with."""


def printable(text: str) -> str:
    r"""Escape the characters that could command a terminal or hide text: `\x1b`, `\u202e`, lone surrogates.

    >>> printable("\x1b]0;title\x07 a\u202eb\n")
    '\\x1b]0;title\\x07 a\\u202eb\n'
    """
    if text.isprintable():
        return text
    return "".join(_escape(character) if _is_hidden(character) else character for character in text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in HIDDEN and character not in KEPT + JOINERS


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def quote(x: Any, limit: int = 80) -> str:
    """`repr(x)` on one line without control characters, shortened to about `limit` characters for messages.

    >>> quote("a" * 100, limit=10)
    "'aaaaa… (102 characters)"
    """
    if isinstance(x, (str, bytes)) and len(x) > limit:  # repr of the whole could take a gigabyte
        shown, length = printable(repr(x[:limit])), len(x) + 2
    else:
        shown = printable(repr(x)).replace("\n", "\\n")
        length = len(shown)
    return shown if length <= limit + 2 else f"{shown[: max(limit - 4, 1)]}… ({length:,} characters)"


def quote_path(path: Any) -> str:
    """A path in quotation marks, like `quote`; whole unless it is absurdly long."""
    return quote(str(path), limit=300)


def list_names(names: Iterable[Any], limit: int = 8) -> str:
    """Names for a message, separated by commas, the first few of many, each short and without control characters.

    >>> list_names(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    names = list(names)
    shown = [text if len(text := printable(str(name)[:81])) <= 80 else text[:80] + "…" for name in names[:limit]]
    return ", ".join(shown).replace("\n", "\\n") + (f" and {len(names) - limit:,} more" if len(names) > limit else "")
