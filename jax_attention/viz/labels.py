"""Text of labels: white space and unprintable characters are made visible, long labels are shortened.

The choice of fonts is in `fonts`.
"""

from __future__ import annotations

import re
import unicodedata

WHITE_SPACE_SIGNS = {"\n": "⏎", "\t": "⇥"}
EMPTY_SIGN = "∅"
MAX_CHARACTERS = 18


def show_white_space(token: str) -> str:
    """Make the white space of a token visible: `" a\\n"` becomes `␣a⏎`; a single blank between two words stays.

    Other unprintable characters (control characters, other kinds of blanks, lone surrogates) become code points.
    """
    if not token:
        return EMPTY_SIGN
    token = re.sub(r"\A +| +\Z| {2,}| (?=[\n\t])|(?<=[\n\t]) ", lambda blanks: "␣" * len(blanks[0]), token)
    return "".join(WHITE_SPACE_SIGNS.get(c) or (c if c.isprintable() else code_point(c)) for c in token)


def code_point(character: str) -> str:
    """The code point of a character as text, such as `U+4ECA`."""
    return f"U+{ord(character):04X}"


def shorten(text: str, longest: int = MAX_CHARACTERS) -> str:
    """Shorten a text to at most `longest` characters, with an ellipsis in place of the middle."""
    if len(text) <= longest:
        return text
    tail = (longest - 1) // 3
    return f"{text[: longest - 1 - tail]}…{text[-tail:]}"


def text_width(text: str) -> float:
    """Approximate width of a text in units of the font size: 1 for a Chinese character, 0.6 for a Latin one."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 for c in text)
