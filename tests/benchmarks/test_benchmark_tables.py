"""The tables of the pages agree with the committed results; a table without results says so."""

from __future__ import annotations

import pytest

from benchmarks import tables


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: str(page.relative_to(tables.ROOT)))
def test_committed_tables_agree_with_the_json(page):
    text = page.read_text(encoding="utf-8")
    marked = tables.MARKED.findall(text)
    assert marked
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == len(marked)
    assert tables.rewrite(text) == text, "run python -m benchmarks.tables"


def test_every_table_is_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in tables.PAGES)
    assert {name for _, name, _ in tables.MARKED.findall(text)} == set(tables.TABLES)


@pytest.fixture
def figures(monkeypatch):
    """Replaced results: two lengths, a slower peer, a faster peer, and one that lacks a pass."""
    results: dict = {}
    monkeypatch.setattr(tables, "read", lambda name: results.get(name, {}))
    for kind, length, ratio in (("full", 128, 0.5), ("full", 1024, 2.0), ("causal", 1024, 8.0)):
        both = {"ms": {"jax_attention": 1234.5}, "ratio": {"jax.nn": ratio, "torch": 0.25, "flex": None}}
        case = {"kind": kind, "T": length, "H": 64, "forward": both, "forward and backward": both}
        results.setdefault("attention", {}).setdefault("cases", []).append(case)
    return results


def rows(text: str) -> list[list[str]]:
    """Cells of a Markdown table, row by row."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_means_are_geometric_and_leave_out_what_a_peer_lacks(figures):
    cells = {name: [number, *ratios] for name, number, *ratios in rows(tables.render("means"))[2:]}
    assert cells["all"] == ["3", "2.00", "-", "0.25", "-", "2.00", "-", "0.25"]
    assert cells["full"][:2] == ["2", "1.00"]
    assert cells["T = 1,024"][:2] == ["2", "4.00"]


def test_losses_are_shown(figures):
    assert rows(tables.render("losses"))[2:4] == [
        ["jax.nn", "forward", "3", "1", "0.50 (full, T = 128, H = 64)"],
        ["torch", "forward", "3", "3", "0.25 (full, T = 128, H = 64)"],
    ]


def test_headline_has_a_row_for_each_length(figures):
    header, _, *body = rows(tables.render("headline"))
    assert header == ["T", "jax.nn", "tokamax", "torch", "Flex", "jax.nn, both", "tokamax, both", "torch, both"]
    assert body[0] == ["128", "0.50", "-", "0.25", "-", "0.50", "-", "0.25"]
    assert body[1] == ["1,024", "4.00", "-", "0.25", "-", "4.00", "-", "0.25"]


def test_tables_without_figures_say_so(figures):
    assert tables.render("memory") == "Not measured yet.\n"
    page = "a\n\n<!-- table: memory -->\nold\n<!-- end -->\n\nb\n"
    assert tables.rewrite(page) == "a\n\n<!-- table: memory -->\n\nNot measured yet.\n\n<!-- end -->\n\nb\n"
    assert tables.rewrite(tables.rewrite(page)) == tables.rewrite(page)
