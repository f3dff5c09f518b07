"""Files are complete or absent, and a wrong name fails before anything is written."""

from __future__ import annotations

import stat

import numpy as np
import pytest

from jax_attention import viz
from tests.support.tiers import slow_except

START = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".PNG": b"\x89PNG"}


@pytest.fixture(scope="module")
def figure():
    return viz.heat_map(np.eye(2), ["a", "b"])


@pytest.mark.parametrize("suffix", slow_except([".png", ".svg", ".PNG"], START))
def test_the_suffix_chooses_the_format(figure, tmp_path, suffix):
    path = viz.save(figure, str(tmp_path / f"map{suffix}"))
    assert path == tmp_path / f"map{suffix}"
    assert path.read_bytes().startswith(START[suffix])
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_is_written_as_utf8(tmp_path):
    page = viz.html_page(np.eye(2), ["写", "代码"])
    assert viz.save(page, tmp_path / "page.html").read_text(encoding="utf-8") == page


def test_permissions_are_those_of_any_new_file(figure, tmp_path):
    other = tmp_path / "other"
    other.write_text("")
    assert stat.S_IMODE(viz.save(figure, tmp_path / "a.png").stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_an_older_file_is_replaced(figure, tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    assert viz.save(figure, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


class Breaks:
    def savefig(self, target, **_):
        target.write(b"half")
        raise RuntimeError("no glyph")


def test_a_failure_leaves_the_older_file_and_nothing_else(figure, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="no glyph"):
        viz.save(Breaks(), path)

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        viz.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.html", "a.png.txt", ""])
def test_an_unknown_suffix_is_refused(figure, tmp_path, name):
    with pytest.raises(ValueError, match=r"path: expected a name that ends in .png, .svg, .pdf for a figure, got"):
        viz.save(figure, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_no_picture(tmp_path):
    with pytest.raises(ValueError, match=r"ends in .html for a page"):
        viz.save("<!doctype html>", tmp_path / "a.png")


def test_a_missing_folder_is_named(figure, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: expected an existing folder.*none.*mkdir"):
        viz.save(figure, tmp_path / "none" / "a.png")


def test_what_was_not_drawn_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match=r"drawn: expected a matplotlib figure.*got float64\[2,2\]"):
        viz.save(np.eye(2), tmp_path / "a.png")
