"""Notebooks show pictures: figures, the page, masks, explanations and reports; their plain text stays short.

matplotlib#16782: without `%matplotlib inline` a notebook shows `<Figure size 640x480 with 1 Axes>` and no picture.
"""

from __future__ import annotations

import base64
import copy
import html
import io
import pickle
import re
import textwrap
from html.parser import HTMLParser

import nbclient
import nbformat
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from matplotlib.image import imread

from jax_attention import explain, interop, masks, viz
from jax_attention.interop.parity.compare_rule import Comparison
from jax_attention.interop.parity.report import ParityReport
from jax_attention.interop.parity.rounding import ParityRow
from tests.support.browser import Browser, installed_browser

NASTY = "</code></iframe><script>alert(1)</script>\"'&\x1b[31m"
X = np.ones((3, 4), np.float32)


def nasty_mask(q_pos, k_pos):
    return q_pos != k_pos


nasty_mask.__name__ = NASTY


def displayed(x) -> tuple[dict, dict]:
    """The forms of an object that a notebook gets, by MIME type, and their options, without any kernel."""
    forms, options = DisplayFormatter().format(x)
    assert len(forms["text/plain"]) < 700, "the text is short"
    return forms, options


def page_in(frame: str) -> str:
    """The page inside of a frame."""
    return html.unescape(re.fullmatch(r'<iframe [^>]*srcdoc="([^"]*)"></iframe>', frame)[1])


class Elements(HTMLParser):
    """Names of the elements, and all text between them."""

    def __init__(self, text: str):
        super().__init__()
        self.names, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


FIGURES = {
    "heat_map": lambda: viz.heat_map(np.eye(3), list("abc")),
    "head_grid": lambda: viz.head_grid(np.ones((2, 3, 3)), list("abc")),
    "alignment_map": lambda: viz.alignment_map(np.eye(2), ["good", "day"], ["guten", "Tag"]),
    "text_heatmap": lambda: viz.text_heatmap(np.eye(2), ["a", "b"]),
    "entropy_map": lambda: viz.entropy_map(np.full((1, 2, 3, 3), 1 / 3)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_pictures_without_matplotlib_inline(name):
    figure = FIGURES[name]()
    forms, options = displayed(figure)
    picture = imread(io.BytesIO(forms["image/png"]))
    height, width = picture.shape[:2]
    inches = figure.get_size_inches()
    assert options["image/png"] == {"width": round(96 * inches[0]), "height": round(96 * inches[1])}
    assert abs(width - 160 * inches[0]) < 2
    assert abs(height - 160 * inches[1]) < 2
    assert picture[..., :3].std() > 0.1
    assert type(figure) is Figure
    assert not hasattr(Figure(), "_repr_png_"), "other figures of the session are not touched"


def test_a_figure_can_still_be_copied_pickled_and_shown_by_matplotlib_inline():
    figure = FIGURES["heat_map"]()
    expected = displayed(figure)[0]["image/png"]
    for twin in (copy.deepcopy(figure), pickle.loads(pickle.dumps(figure))):
        assert displayed(twin)[0]["image/png"] == expected
        twin.axes[0].set_title("another")
        assert displayed(twin)[0]["image/png"] != expected, "the picture is that of the copy"
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(Figure, lambda figure: b"by the settings of the session")
    assert formatter.format(figure)[0]["image/png"] == b"by the settings of the session"


def test_the_page_is_shown_as_the_page_in_a_frame_that_it_cannot_leave():
    page = viz.html_page(np.eye(2), [NASTY, "代码"], title=NASTY)
    forms, _ = displayed(page)
    assert page_in(forms["text/html"]) == page
    assert Elements(forms["text/html"]).names == ["iframe"]
    assert 'sandbox="allow-scripts"' in forms["text/html"]
    assert re.fullmatch(r"Page\([\d,]+ characters\)", forms["text/plain"])
    assert isinstance(page, str)
    assert str(page) == "".join(page) == f"{page}"
    assert pickle.loads(pickle.dumps(page)) == page


def test_the_report_of_a_comparison_is_shown_as_its_page():
    row = ParityRow(0, "attention", interop.difference(X, X), 1e-6)
    report = ParityReport(NASTY, "float32", (row,), 1e-6, None)
    forms, _ = displayed(report)
    assert Elements(forms["text/html"]).names == ["iframe"]
    assert 'sandbox=""' in forms["text/html"], "it has no script"
    assert page_in(forms["text/html"]) == report.html()
    assert "script" not in Elements(report.html()).names
    assert forms["text/plain"].count("\n") == 0
    assert "\x1b" not in forms["text/plain"]


def test_explanations_and_comparisons_are_tables_and_text():
    forms, _ = displayed(explain(X, X, X, mask=nasty_mask))
    elements = Elements(forms["text/html"])
    assert set(elements.names) == {"table", "tr", "th", "td"}
    for text in ("reference", "not blockwise", "float32[3,3], 36 bytes", "</code></iframe><script>alert(1)</script>"):
        assert text in elements.text
    assert "\x1b" not in forms["text/html"]
    assert forms["text/plain"].startswith("implementation: reference\n")

    equal = interop.difference(X, X)
    comparison = Comparison(equal, {"query": equal}, 1e-6, {"output": 2.0, "query": 3.0})
    forms, _ = displayed(comparison)
    assert set(Elements(forms["text/html"]).names) == {"table", "tr", "th", "td"}
    assert "gradient of query0.0e+003.0e-06" in Elements(forms["text/html"]).text
    assert forms["text/plain"] == str(comparison)


def test_words_of_strangers_are_no_markup_in_the_picture_of_a_mask():
    forms, _ = displayed(masks.as_mask(nasty_mask))
    elements = Elements(forms["text/html"])
    assert elements.names == ["div", "code", "div", "svg", "path", "path", "small"]
    assert elements.text.startswith(NASTY.replace("\x1b", "\\x1b"))


CELLS = """
    import numpy as np
    from jax_attention import explain, masks, viz
    weights = np.eye(3)
    viz.heat_map(weights, list("abc"))
    viz.html_page(weights, list("abc"))
    masks.causal() & masks.sliding_window(4)
    explain(weights, weights, weights)
    from flax import nnx; from jax_attention import models
    model = models.create(models.LMConfig(vocab_size=11, width=8, depth=1, num_heads=2), 0); model
    model(np.arange(3))
    import matplotlib.pyplot; viz.heat_map(weights)
"""


@pytest.mark.slow
def test_an_executed_notebook_has_the_pictures(tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):  # nothing is written to HOME
        monkeypatch.setenv(name, str(tmp_path / name))
    cells = [nbformat.v4.new_code_cell(line) for line in textwrap.dedent(CELLS).strip().splitlines()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert [set(output.data) - {"text/plain"} for output in outputs] == [
        {"image/png"},
        {"text/html"},
        {"text/html"},
        {"text/html"},
        set(),
        set(),
        {"image/png"},
    ]
    assert max(len(output.data["text/plain"]) for output in outputs) < 700
    assert base64.b64decode(outputs[0].data["image/png"]).startswith(b"\x89PNG")
    assert page_in(outputs[1].data["text/html"]) == viz.html_page(np.eye(3), list("abc"))
    assert outputs[5].data["text/plain"] == "LMOutput(logits=float32[3,11], cache=None, captured=None)"


@pytest.mark.slow
def test_the_page_runs_in_its_frame_and_nowhere_else(tmp_path):
    program = installed_browser()
    if program is None:
        pytest.skip("no browser: apt-get install chromium on Debian brings one")
    notebook = tmp_path / "notebook.html"
    frame = viz.html_page(np.eye(2), ["a", "b"])._repr_html_()
    notebook.write_text(f"<!doctype html><meta charset=utf-8><style>body {{ background: white }}</style>{frame}")
    browser = Browser(program, tmp_path / "profile")
    try:
        browser.open(notebook)
        assert browser.value("document.querySelector('iframe').contentDocument") is None
        assert browser.value("typeof attentionMap") == "undefined", "its script is not one of the notebook"
        for _ in range(100):  # the script in the frame paints after the notebook has loaded
            shot = browser.send("Page.captureScreenshot")["data"]
            picture = imread(io.BytesIO(base64.b64decode(shot)))[..., :3]
            painted = np.abs(picture - np.array([8, 48, 107]) / 255).max(axis=-1) < 0.05
            if painted.sum() > 1000:
                break
        assert painted.sum() > 1000, "two cells have the weight 1, in dark blue"
    finally:
        browser.close()
