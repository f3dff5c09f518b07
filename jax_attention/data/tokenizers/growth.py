"""How much longer a `tokenizer.json` may make a text before it is cut into tokens, or while tokens are decoded.

A step that replaces one letter by two is harmless; thirty of them ask for a gigabyte per letter, and the `tokenizers`
library then aborts the process. So the factors of all steps are multiplied before the library reads the definition.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from jax_attention.core.checks import fail_unless
from jax_attention.core.text import quote

MAX_GROWTH = 1024
"""Largest product of the factors. Published tokenizers have at most about 200."""
MAX_STEPS = 64
"""Most steps; published tokenizers have fewer than ten."""
STEPS = ("normalizers", "pretokenizers", "decoders", "processors")
"""Fields under which a sequence of steps keeps them."""
DOUBLING = {"ByteLevel": 2, "Metaspace": 3, "BertNormalizer": 3}
"""Factors of steps that replace bytes by letters or put spaces around them. Unicode normalization is not among them: a
second one finds nothing more to do.
"""


def check_growth(definition: dict[str, Any]) -> None:
    """Refuse a definition whose normalizer, pre-tokenizer or decoder could multiply the length of a text."""
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        steps, growth = _flatten(definition.get(name)), 1
        for step in steps:
            growth *= _factor(step)
        fail_unless(
            growth <= MAX_GROWTH,
            f"definition: expected a {name} that makes a text at most {MAX_GROWTH:,} times longer, got {len(steps)} "
            f"steps that may make it {quote(growth, 20)} times longer.",
        )


def _flatten(step: Any) -> list[dict[str, Any]]:
    """The steps of a sequence, those of nested sequences included."""
    found, waiting = [], [step]
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict):
            found.append(step)
            waiting += [inner for name in STEPS if isinstance(step.get(name), list) for inner in step[name]]
        fail_unless(
            len(found) + len(waiting) <= MAX_STEPS, f"definition: expected at most {MAX_STEPS} steps, got more."
        )
    return found


def _factor(step: dict[str, Any]) -> int:
    """How many times longer a step may make a text, in bytes."""
    kind = step.get("type")
    if kind == "Replace":
        return _replacement_factor(step.get("pattern"), step.get("content"))
    if kind == "Prepend":
        return 1 + _bytes(step.get("prepend"))
    if kind == "Precompiled":
        return _longest_replacement(step.get("precompiled_charsmap"))
    return DOUBLING.get(kind, 1) if isinstance(kind, str) else 1


def _replacement_factor(pattern: Any, content: Any) -> int:
    literal = pattern.get("String") if isinstance(pattern, dict) else None
    if literal:
        return max(1, -(-_bytes(content) // _bytes(literal)))
    return 1 + _bytes(content)  # an expression may match the empty text between two letters


def _longest_replacement(charsmap: Any) -> int:
    """The longest text in a sentencepiece character map: a table, its size in front, then texts that end in NUL."""
    try:
        content = base64.b64decode(charsmap)
    except (TypeError, ValueError, binascii.Error):
        return 1  # the library refuses it
    texts = content[4 + int.from_bytes(content[:4], "little") :]
    return max(map(len, texts.split(b"\0")), default=1) or 1


def _bytes(text: Any) -> int:
    return len(text.encode("utf-8", "replace")) if isinstance(text, str) else 0
