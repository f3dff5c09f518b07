"""What a token looks like on paper: white space is visible, nothing is invisible, long ones are cut.

Knows nothing of fonts; see `fonts`.
"""

from __future__ import annotations

import re
import unicodedata

SIGNS = {"\n": "⏎", "\t": "⇥"}
EMPTY = "∅"
LONGEST = 18


def visible(token: str) -> str:
    """The token with its white space shown: `" a\\n"` is `␣a⏎`; one blank between two words stays a blank.

    Whatever else prints nothing (control characters, foreign blanks, lone surrogates) becomes its code point.
    """
    if not token:
        return EMPTY
    token = re.sub(r"\A +| +\Z| {2,}| (?=[\n\t])|(?<=[\n\t]) ", lambda blanks: "␣" * len(blanks[0]), token)
    return "".join(SIGNS.get(c) or (c if c.isprintable() else code_point(c)) for c in token)


def code_point(character: str) -> str:
    """`U+4ECA`."""
    return f"U+{ord(character):04X}"


def shorten(text: str, longest: int = LONGEST) -> str:
    """At most `longest` characters, an ellipsis in place of the middle."""
    if len(text) <= longest:
        return text
    tail = (longest - 1) // 3
    return f"{text[: longest - 1 - tail]}…{text[-tail:]}"


def width(text: str) -> float:
    """Roughly how wide the text is, in units of the font size: 1 for a Chinese character, 0.6 for a Latin one."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 for c in text)
