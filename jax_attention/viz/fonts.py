"""Choice of fonts that can draw the labels of a figure, read from the font files; matplotlib's settings stay unchanged.

The result is a `Lettering`: the font families of a figure's texts, among which matplotlib chooses glyph by glyph, and
the characters that no installed font has. Those are written as code points, after one warning.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jax_attention.viz.labels import code_point, shorten, show_white_space

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
PLACEHOLDER_FONTS = ("last resort", "lastresort", "adobe blank")
"""Fonts that claim every character and draw a box for it; they must not be chosen."""

CJK_RANGES = ((0x2E80, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0xFF00, 0xFFEF), (0x20000, 0x3FFFF))


class Font(NamedTuple):
    """A font family that matplotlib knows, and the path of its file."""

    family: str
    path: str


@dataclasses.dataclass(frozen=True)
class Lettering:
    """Font families of the texts of one figure, and the characters that none of them has."""

    families: tuple[str, ...]
    missing: frozenset[str]

    def label(self, token: str) -> str:
        """A token as a label: white space visible, shortened, missing characters as code points."""
        return self.text(shorten(show_white_space(token)))

    def text(self, text: str) -> str:
        """The text, with code points in place of missing characters."""
        if not self.missing.intersection(text):
            return text
        parts = "".join(f" {code_point(c)} " if c in self.missing else c for c in text).split()
        return " ".join(parts if len(parts) < 4 else [*parts[:2], "…"])

    @property
    def style(self) -> dict[str, object]:
        """Keyword arguments of a matplotlib text: these families, and no mathematics between dollar signs."""
        return {"family": list(self.families), "parse_math": False, "usetex": False}


def lettering(labels: Iterable[str], title: str = "") -> Lettering:
    """Choose families that together draw all labels and the title; warn once if no font has some character."""
    characters = frozenset("".join([*map(show_white_space, labels), title])) - {"\n"}
    base = default_fonts()
    missing = characters - drawable(characters, base)
    fallbacks = choose_fallbacks(missing, installed_fonts()) if missing else ()
    missing -= drawable(missing, fallbacks)
    if missing:
        warnings.warn(_missing_message(missing), UserWarning, stacklevel=3)  # the line that called the public function
    families = dict.fromkeys(font.family for font in (*base, *fallbacks))
    return Lettering(tuple(families), missing)


def default_fonts() -> tuple[Font, ...]:
    """The fonts of matplotlib's settings, then DejaVu Sans, which comes with matplotlib and has the signs ␣ ⏎ ⇥."""
    from matplotlib import font_manager, rcParams

    fonts = []
    for family in [*rcParams["font.family"], "DejaVu Sans"]:
        try:
            path = font_manager.findfont(font_manager.FontProperties(family=family), fallback_to_default=False)
        except ValueError:
            continue
        fonts.append(Font(family, str(path)))
    return tuple(fonts)


def installed_fonts() -> tuple[Font, ...]:
    """One regular font per installed family, first those that are known to draw Chinese well."""
    from matplotlib import font_manager

    register_new_fonts()
    entries = sorted(font_manager.fontManager.ttflist, key=_distance_from_regular)
    families = {entry.name: str(entry.fname) for entry in reversed(entries)}
    fonts = [Font(name, path) for name, path in families.items() if not name.lower().startswith(PLACEHOLDER_FONTS)]
    rank = {name: i for i, name in enumerate(PREFERRED)}
    return tuple(sorted(fonts, key=lambda font: (rank.get(font.family, len(rank)), font.family)))


def drawable(characters: frozenset[str], fonts: Iterable[Font]) -> frozenset[str]:
    """The characters that at least one of the fonts can draw."""
    return frozenset().union(*(_glyphs(characters, font.path) for font in fonts))


@functools.lru_cache(maxsize=64)
def choose_fallbacks(missing: frozenset[str], fonts: tuple[Font, ...]) -> tuple[Font, ...]:
    """A few fonts that draw as many characters as possible: preferred ones in their order, then the most complete."""
    chosen: list[Font] = []
    preferred = [font for font in fonts if font.family in PREFERRED]
    for font in preferred:
        if new := missing & _glyphs(missing, font.path):
            chosen.append(font)
            missing -= new
    glyphs = {font: _glyphs(missing, font.path) for font in fonts} if missing else {}
    while missing and (best := max(glyphs, key=lambda font: len(glyphs[font] & missing), default=None)):
        if not glyphs[best] & missing:
            break
        chosen.append(best)
        missing -= glyphs[best]
    return tuple(chosen)


def _glyphs(characters: frozenset[str], path: str) -> frozenset[str]:
    """The characters for which the font file has an outline."""
    from matplotlib.ft2font import FT2Font

    if not characters:
        return frozenset()
    try:
        font = FT2Font(path)
        points = font.get_charmap() if font.scalable else {}
    except (OSError, RuntimeError):  # the file is gone or broken: it has no glyphs
        return frozenset()
    return frozenset(c for c in characters if ord(c) in points)


def _distance_from_regular(entry: object) -> tuple[bool, int]:
    """Sort key of matplotlib's font entries: normal style before italic, then by distance from weight 400 (regular)."""
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
    """Register fonts that matplotlib's stored list lacks: the bundled ones, and any installed after it was written.

    matplotlib keeps its list between runs, so without this a font installed on the advice of the warning is not found.
    """
    from matplotlib import font_manager

    known = {str(entry.fname) for entry in font_manager.fontManager.ttflist}
    for path in sorted({*font_manager.findSystemFonts(), *bundled_fonts()} - known):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # unreadable font files are skipped, as matplotlib does
            continue


def _missing_message(missing: frozenset[str]) -> str:
    examples = ", ".join(sorted(missing)[:5]) + (", …" if len(missing) > 5 else "")
    chinese = any(low <= ord(c) <= high for c in missing for low, high in CJK_RANGES)
    cure = "pip install zhplot, or apt-get install fonts-wqy-microhei on Debian and Ubuntu, brings one"
    return (
        f"No installed font has a glyph for {len(missing)} of the characters in the labels ({examples}): they are "
        f"written as code points, such as {code_point(min(missing))}. "
        + (f"{cure}." if chinese else "Install a font that has them; matplotlib needs outlines, not colour bitmaps.")
    )
