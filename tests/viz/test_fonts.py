"""Fonts of labels: a fallback font for glyphs that the default font lacks, or one warning and code points."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from jax_attention import viz
from jax_attention.viz import fonts
from jax_attention.viz.labels import shorten, show_white_space

BUNDLED = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
STIX = fonts.Font("STIXGeneral", str(BUNDLED / "STIXGeneral.ttf"))
LAST_RESORT = fonts.Font("Last Resort High-Efficiency", str(BUNDLED / "LastResortHE-Regular.ttf"))
CHINESE = ["我", "喜欢", "写", "代码"]


def character_of_stix() -> str:
    """A character that STIX has and DejaVu Sans lacks, so that the fallback is tested on every machine."""
    dejavu = FT2Font(str(BUNDLED / "DejaVuSans.ttf")).get_charmap()
    stix = FT2Font(STIX.path).get_charmap()
    return next(chr(c) for c in sorted(stix) if c not in dejavu and 0x100 < c < 0xE000 and chr(c).isprintable())


@pytest.fixture
def no_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "installed_fonts", tuple)


def draw(figure) -> bytes:
    """Draw as SVG; a missing glyph makes matplotlib warn, and warnings are errors in these tests."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def test_a_fallback_font_is_added_for_a_missing_glyph(monkeypatch):
    monkeypatch.setattr(fonts, "installed_fonts", lambda: (STIX,))
    character = character_of_stix()
    figure = viz.heat_map(np.eye(2), ["a", character])
    label = figure.axes[0].get_xticklabels()[1]
    assert label.get_text() == character
    assert label.get_fontfamily()[-1] == "STIXGeneral"
    draw(figure)


def test_fallback_fonts_are_searched_only_when_needed(monkeypatch):
    monkeypatch.setattr(fonts, "installed_fonts", lambda: pytest.fail("the default font has these"))
    viz.heat_map(np.eye(4), ["a", " b", "\n\t", "ü"])


def test_without_a_font_one_warning_names_the_packages(no_fonts):
    with pytest.warns(UserWarning, match="No installed font") as caught:
        figure = viz.heat_map(np.eye(4), CHINESE, title="我喜欢")
    assert len(caught) == 1
    assert caught[0].filename == __file__, "the warning points at the caller"
    message = str(caught[0].message)
    for part in ("No installed font", "6 of the characters", "U+4EE3", "fonts-wqy-microhei", "pip install zhplot"):
        assert part in message
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["U+6211", "U+559C U+6B22", "U+5199", "U+4EE3 U+7801"]
    assert figure.axes[0].get_title() == "U+6211 U+559C U+6B22"
    draw(figure)


@pytest.mark.parametrize(
    "picture",
    [
        lambda: viz.head_grid(np.ones((1, 1, 1, 1)), ["写"], layers=("层",), title="图"),
        lambda: viz.alignment_map(np.eye(1), ["写"], ["write"]),
        lambda: viz.text_heatmap(np.eye(1), ["写"], ["write"], title="图"),
        lambda: viz.entropy_map(np.ones((1, 1, 1, 1)), layers=("层",), title="熵"),
    ],
)
def test_every_picture_warns_once_and_can_be_drawn(no_fonts, picture):
    with pytest.warns(UserWarning, match="zhplot") as caught:
        figure = picture()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    draw(figure)


def test_a_missing_emoji_does_not_suggest_a_chinese_font(no_fonts):
    with pytest.warns(UserWarning, match="U\\+1F642") as caught:
        viz.heat_map(np.eye(1), ["🙂"])
    assert "wqy" not in str(caught[0].message)


def test_fonts_that_only_claim_glyphs_are_skipped():
    families = [font.family.lower() for font in fonts.installed_fonts()]
    assert len(families) > 5
    assert len(set(families)) == len(families)
    assert [name for name in families if "last" in name and "resort" in name] == []
    assert fonts.drawable(frozenset("我"), [LAST_RESORT]) == {"我"}, "this font claims the character"


def test_a_font_file_that_is_gone_or_broken_has_no_glyphs(tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    for path in (broken, tmp_path / "gone.ttf"):
        assert fonts.drawable(frozenset("a"), [fonts.Font("x", str(path))]) == frozenset()


def test_preferred_fonts_come_first_then_the_most_complete(monkeypatch):
    glyphs = {"a": "我喜欢", "b": "我", "c": "写", "WenQuanYi Micro Hei": "我喜"}
    monkeypatch.setattr(fonts, "_glyphs", lambda characters, path: characters & frozenset(glyphs[path]))
    fonts.choose_fallbacks.cache_clear()
    candidates = tuple(fonts.Font(name, name) for name in glyphs)
    chosen = fonts.choose_fallbacks(frozenset("我喜欢写代"), candidates)
    assert [font.family for font in chosen] == ["WenQuanYi Micro Hei", "a", "c"]
    fonts.choose_fallbacks.cache_clear()


def test_the_font_of_zhplot_is_found_without_importing_it(tmp_path, monkeypatch):
    """Importing zhplot would change rcParams, and matplotlib's stored list does not have its folder."""
    folder = tmp_path / "zhplot" / "fonts"
    folder.mkdir(parents=True)
    (tmp_path / "zhplot" / "__init__.py").write_text("raise AssertionError('imported')")
    shutil.copy(STIX.path, folder / "Some.ttf")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "zhplot", raising=False)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    fonts.register_new_fonts.cache_clear()
    fonts.installed_fonts()
    assert str(folder / "Some.ttf") in [str(entry.fname) for entry in font_manager.fontManager.ttflist]
    assert "zhplot" not in sys.modules


@pytest.fixture
def bare_machine(monkeypatch):
    """Replace the installed fonts by those that matplotlib and the viz extra bring."""
    bundled = [entry for entry in font_manager.fontManager.ttflist if str(entry.fname).startswith(str(BUNDLED))]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bundled)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *args, **options: [])
    fonts.register_new_fonts.cache_clear()
    yield
    fonts.register_new_fonts.cache_clear()


def test_chinese_is_drawn_where_no_font_is_installed(bare_machine):
    """The viz extra brings a font. matplotlib warns of glyphs that it cannot draw, and warnings are errors here."""
    settings = dict(matplotlib.rcParams)
    figure = viz.heat_map(np.eye(4), CHINESE, title="我喜欢写代码")
    svg = draw(figure)
    label = figure.axes[0].get_xticklabels()[0]
    assert label.get_text() == CHINESE[0]
    assert label.get_fontfamily()[-1] == "Noto Sans SC"
    (file,) = fonts.bundled_fonts()
    glyphs = [FT2Font(file).get_char_index(ord(character)) for character in "我喜欢写代码"]
    assert [f"NotoSansSC-Regular-{glyph:x}".encode() in svg for glyph in glyphs] == [True] * 6
    assert dict(matplotlib.rcParams) == settings


def test_chinese_is_drawn_with_the_fonts_of_this_machine():
    figure = viz.heat_map(np.eye(4), CHINESE, title="我喜欢写代码")
    draw(figure)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == CHINESE


@pytest.mark.parametrize(
    ("token", "label"),
    [
        ("cat", "cat"),
        (" cat", "␣cat"),
        ("cat  ", "cat␣␣"),
        ("living things", "living things"),
        ("a  b", "a␣␣b"),
        (" ", "␣"),
        ("\n", "⏎"),
        (" \n", "␣⏎"),
        ("\n    x", "⏎␣␣␣␣x"),
        ("a\tb", "a⇥b"),
        ("", "∅"),
        ("\x00", "U+0000"),
        ("\u200b", "U+200B"),
        ("\u3000", "U+3000"),
        ("\udc80", "U+DC80"),
        ("今天", "今天"),
    ],
)
def test_white_space_is_visible(token, label):
    assert show_white_space(token) == label


def test_long_words_are_shortened_in_the_middle():
    assert shorten("internationalisation", 9) == "intern…on"
    assert shorten("short", 9) == "short"
