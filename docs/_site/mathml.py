"""TeX formulas as MathML, made when the site is built."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

TEX = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)
"""A formula as pymdownx.arithmatex leaves it, inline or displayed."""


def replace_tex(page: str) -> str:
    """The HTML of a page, every formula as MathML."""
    return TEX.sub(lambda m: convert(html.unescape(m[3]), display="block" if m[2] == "[" else "inline"), page)
