"""The HTML page in a real browser without network: weights under the mouse, choice of heads, Chinese labels."""

from __future__ import annotations

import numpy as np
import pytest

from jax_attention import viz
from tests.support.browser import Browser, installed_browser

WORDS = ["我", "喜欢", "写", "代码"]
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(4), (2, 2, 4))  # layers, heads, queries, keys
READOUT = "document.getElementById('readout').textContent"
MAP = "document.getElementById('map')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = installed_browser()
    if program is None:
        pytest.skip("no browser: apt-get install chromium on Debian brings one")
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "attention.html"
    viz.save(viz.html_page(WEIGHTS, WORDS, title="我喜欢写代码"), page)
    browser = Browser(program, folder / "profile")
    browser.open(page)
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def initial_state(browser):
    """Start each test with layer 0, head 0, no fixed row, and the mouse outside the map."""
    choose(browser, "layer", 0)
    choose(browser, "head", 0)
    browser.point(990, 5)


def choose(browser: Browser, name: str, value: int) -> None:
    select = f"document.getElementById('{name}')"
    browser.value(f"({select}.value = {value}, {select}.dispatchEvent(new Event('change')))")


def cell(browser: Browser, query: int, key: int) -> tuple[float, float]:
    """The middle of a cell of the map. Labels are left of the cells and above them; lines take 2 pixels after them."""
    x, y = browser.middle(MAP)
    wide, high = browser.value(f"[{MAP}.clientWidth, {MAP}.clientHeight]")
    side = 34  # pixels of a cell in a map of four words
    return x + wide / 2 - 2 - (len(WORDS) - key - 0.5) * side, y + high / 2 - 2 - (len(WORDS) - query - 0.5) * side


def readout(weights: np.ndarray, query: int, key: int) -> str:
    return f"query {query} “{WORDS[query]}” → key {key} “{WORDS[key]}”: {weights[query, key]:.4f}"


def map_pixels(browser: Browser) -> str:
    return browser.value(f"{MAP}.toDataURL()")


def test_words_are_labels_in_chinese(browser):
    for part in ("queries", "keys"):
        labels = browser.value(f"[...document.getElementById('{part}').children].map((word) => word.textContent)")
        assert labels == WORDS
    assert browser.value("document.title") == "我喜欢写代码"
    assert browser.value("document.querySelector('h1').textContent") == "我喜欢写代码"


def test_pointing_at_a_cell_shows_its_weight(browser):
    for query, key in ((2, 3), (0, 0), (3, 1)):
        browser.point(*cell(browser, query, key))
        assert browser.value(READOUT) == readout(WEIGHTS[0, 0], query, key)


def test_pointing_at_words_shows_their_weight(browser):
    browser.point(*browser.middle("document.getElementById('queries').children[1]"))
    browser.point(*browser.middle("document.getElementById('keys').children[3]"))
    assert browser.value(READOUT) == readout(WEIGHTS[0, 0], 1, 3)


def test_a_click_fixes_a_row_and_escape_releases_it(browser):
    browser.point(*cell(browser, 2, 3), click=True)
    browser.point(*cell(browser, 0, 1))
    assert browser.value(READOUT) == readout(WEIGHTS[0, 0], 2, 1) + " (row fixed)"
    for kind in ("keyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key="Escape")
    browser.point(*cell(browser, 0, 2))
    assert browser.value(READOUT) == readout(WEIGHTS[0, 0], 0, 2)


def test_choosing_layer_and_head_changes_the_map(browser):
    before = map_pixels(browser)
    choose(browser, "layer", 1)
    choose(browser, "head", 1)
    assert map_pixels(browser) != before
    browser.point(*cell(browser, 2, 3))
    assert browser.value(READOUT) == readout(WEIGHTS[1, 1], 2, 3)
    choose(browser, "head", -1)
    assert browser.value(READOUT) == readout(WEIGHTS[1].mean(0), 2, 3)


def test_entropy_and_rollout_are_shown(browser):
    entropy = "document.getElementById('entropy').textContent"
    assert browser.value(entropy) == f"entropy {viz.head_entropy(WEIGHTS)[0, 0]:.4f} nats of at most {np.log(4):.4f}"
    choose(browser, "layer", -1)
    assert browser.value("document.getElementById('head').value") == "-1"
    browser.point(*cell(browser, 3, 1))
    assert browser.value(READOUT) == readout(viz.rollout(WEIGHTS), 3, 1)


def test_clicking_a_small_map_shows_it_large(browser):
    browser.point(*browser.middle("document.querySelectorAll('#thumbnails canvas')[3]"), click=True)
    assert browser.value("[document.getElementById('layer').value, document.getElementById('head').value]") == [
        "1",
        "1",
    ]
    browser.point(*cell(browser, 1, 0))
    assert browser.value(READOUT) == readout(WEIGHTS[1, 1], 1, 0)


def test_a_map_of_many_words_is_painted_to_its_last_cell(browser, tmp_path):
    """A canvas of 9 pixels for each of 2,000 words is larger than browsers paint."""
    count, colours = 2000, "[...c.getContext('2d').getImageData(c.width - 5, c.height - 5, 1, 1).data]"
    page = viz.save(viz.html_page(np.eye(count), [str(i) for i in range(count)]), tmp_path / "attention.html")
    browser.open(page)
    width, height, corner = browser.value(f"(() => {{ const c = {MAP}; return [c.width, c.height, {colours}]; }})()")
    high = browser.value("getComputedStyle(document.documentElement).getPropertyValue('--high').trim()")
    assert max(width, height) <= 8192
    assert max(browser.value(f"[{MAP}.clientWidth, {MAP}.clientHeight]")) <= 8192
    assert corner == [*bytes.fromhex(high[1:]), 255]


def test_nothing_is_loaded_and_nothing_fails(browser):
    requests = [event["params"] for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    assert {request["request"]["url"].split("/")[-1] for request in requests} == {"attention.html"}
    assert not [event for event in browser.events if event["method"] == "Runtime.exceptionThrown"]
