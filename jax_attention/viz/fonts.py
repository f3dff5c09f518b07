"""Which fonts can draw these labels? Asks the font files, and never touches matplotlib's settings.

The answer is a `Lettering`: a list of families for the text objects of one figure, between which matplotlib chooses
glyph by glyph, and the characters that no installed font has. Those are written as code points, after one warning.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jax_attention.viz.labels import code_point, shorten, visible

PREFERRED = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "SimHei",
    "Arial Unicode MS",
)
NO_GLYPHS = ("last resort", "lastresort", "adobe blank")
"""Fonts that claim every character and draw a box for it."""

HAN_AND_NEIGHBOURS = ((0x2E80, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0xFF00, 0xFFEF), (0x20000, 0x3FFFF))


class Font(NamedTuple):
    """A family that matplotlib knows, and the file that it would draw with."""

    family: str
    path: str


@dataclasses.dataclass(frozen=True)
class Lettering:
    """How the text of one figure is written."""

    families: tuple[str, ...]
    missing: frozenset[str]

    def label(self, token: str) -> str:
        """The token, visible, not too long, every character of which can be drawn."""
        return self.text(shorten(visible(token)))

    def text(self, text: str) -> str:
        """The text with code points in place of characters that no font has."""
        if not self.missing.intersection(text):
            return text
        spelt = "".join(f" {code_point(c)} " if c in self.missing else c for c in text).split()
        shown = spelt if len(spelt) < 4 else [*spelt[:2], "…"]
        return " ".join(shown)

    @property
    def style(self) -> dict[str, object]:
        """Keywords of a matplotlib text: our families, and a dollar sign is a dollar sign."""
        return {"family": list(self.families), "parse_math": False, "usetex": False}


def lettering(labels: Iterable[str], title: str = "") -> Lettering:
    """The families that together draw all labels and the title; warns once if no installed font has a character."""
    characters = frozenset("".join([*map(visible, labels), title])) - {"\n"}
    base = default_fonts()
    missing = characters - covered(characters, base)
    more = choose(missing, installed()) if missing else ()
    missing -= covered(missing, more)
    if missing:
        warnings.warn(_explanation(missing), UserWarning, stacklevel=3)  # where the public function was called
    families = dict.fromkeys(font.family for font in (*base, *more))
    return Lettering(tuple(families), missing)


def default_fonts() -> tuple[Font, ...]:
    """What matplotlib would draw with anyway, then DejaVu Sans, which it brings along and which has the signs ␣ ⏎ ⇥."""
    from matplotlib import font_manager, rcParams

    found = []
    for family in [*rcParams["font.family"], "DejaVu Sans"]:
        try:
            path = font_manager.findfont(font_manager.FontProperties(family=family), fallback_to_default=False)
        except ValueError:
            continue
        found.append(Font(family, str(path)))
    return tuple(found)


def installed() -> tuple[Font, ...]:
    """One upright, regular font per installed family, those known to draw Chinese well first."""
    from matplotlib import font_manager

    register_new_fonts()
    entries = sorted(font_manager.fontManager.ttflist, key=_plainness)
    families = {entry.name: str(entry.fname) for entry in reversed(entries)}
    fonts = [Font(name, path) for name, path in families.items() if not name.lower().startswith(NO_GLYPHS)]
    rank = {name: i for i, name in enumerate(PREFERRED)}
    return tuple(sorted(fonts, key=lambda font: (rank.get(font.family, len(rank)), font.family)))


def covered(characters: frozenset[str], fonts: Iterable[Font]) -> frozenset[str]:
    """Those of the characters that at least one of the fonts can draw."""
    return frozenset().union(*(_glyphs(characters, font.path) for font in fonts))


@functools.lru_cache(maxsize=64)
def choose(missing: frozenset[str], fonts: tuple[Font, ...]) -> tuple[Font, ...]:
    """Few fonts that cover as much as can be covered: preferred ones in their order, then the most complete."""
    chosen: list[Font] = []
    preferred = [font for font in fonts if font.family in PREFERRED]
    for font in preferred:
        if new := missing & _glyphs(missing, font.path):
            chosen.append(font)
            missing -= new
    offers = {font: _glyphs(missing, font.path) for font in fonts} if missing else {}
    while missing and (best := max(offers, key=lambda font: len(offers[font] & missing), default=None)):
        if not offers[best] & missing:
            break
        chosen.append(best)
        missing -= offers[best]
    return tuple(chosen)


def _glyphs(characters: frozenset[str], path: str) -> frozenset[str]:
    """Those of the characters that the font file maps to an outline."""
    from matplotlib.ft2font import FT2Font

    if not characters:
        return frozenset()
    try:
        font = FT2Font(path)
        points = font.get_charmap() if font.scalable else {}
    except (OSError, RuntimeError):  # a file that is gone or broken, or bitmaps only, has no glyph for us
        return frozenset()
    return frozenset(c for c in characters if ord(c) in points)


def _plainness(entry: object) -> tuple[bool, int]:
    weight = entry.weight if isinstance(entry.weight, int) else 400
    return entry.style != "normal", abs(weight - 400)


def bundled_fonts() -> tuple[str, ...]:
    """Paths of the font files of the package zhplot, which the `viz` extra installs: Noto Sans SC.

    The package is not imported, because its import changes the settings of all matplotlib figures.
    """
    spec = importlib.util.find_spec("zhplot")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return tuple(sorted(str(path) for folder in folders for path in Path(folder).rglob("*.[to]tf")))


@functools.cache
def register_new_fonts() -> None:
    """Register the fonts that matplotlib's stored list lacks: the bundled ones, and any installed since it was written.

    Without this, the advice of our warning would not help: matplotlib keeps its list between runs.
    """
    from matplotlib import font_manager

    known = {str(entry.fname) for entry in font_manager.fontManager.ttflist}
    for path in sorted({*font_manager.findSystemFonts(), *bundled_fonts()} - known):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # matplotlib skips what it cannot read, and so do we
            continue


def _explanation(missing: frozenset[str]) -> str:
    few = ", ".join(sorted(missing)[:5]) + (", …" if len(missing) > 5 else "")
    chinese = any(low <= ord(c) <= high for c in missing for low, high in HAN_AND_NEIGHBOURS)
    cure = "pip install zhplot, or apt-get install fonts-wqy-microhei on Debian and Ubuntu, brings one"
    return (
        f"No installed font has a glyph for {len(missing)} of the characters in the labels ({few}): they are written "
        f"as code points, such as {code_point(min(missing))}. "
        + (f"{cure}." if chinese else "Install a font that has them; matplotlib needs outlines, not colour bitmaps.")
    )
