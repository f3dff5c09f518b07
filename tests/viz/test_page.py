"""The HTML page: self-contained, weights exact to half a step, and no token or title becomes markup."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_attention import viz

SCRIPT = resources.files("jax_attention.viz").joinpath("web", "page.js")
NASTY = ["<script>alert(1)</script>", "</script>", "<!--", "&amp;", '"', "'", "\\", "\u2028", "{{title}}", "]]>"]


class Page(HTMLParser):
    """Elements by name, and the text inside scripts, styles and the title."""

    def __init__(self, page: str):
        super().__init__()
        self.elements, self.texts, self.attributes = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        last = self.elements[-1] if self.elements else ""
        self.texts[last] = [*self.texts.get(last, []), data]


def contents(page: str) -> dict:
    """The data of a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def weights_in(page: str) -> np.ndarray:
    """The weights `[L, N, T, S]` that a page stores."""
    data = contents(page)
    steps = np.frombuffer(base64.b64decode(data["weights"]), "<u2").reshape(data["shape"])
    return steps / 65535 * np.reshape(data["largest"], data["shape"][:2])[..., None, None]


@given(seed=st.integers(0, 1000), shape=st.tuples(*[st.integers(1, 5)] * 4), scale=st.sampled_from([1e-6, 1.0, 50.0]))
def test_weights_survive_to_half_a_step_and_zeros_exactly(seed, shape, scale):
    rng = np.random.default_rng(seed)
    weights = scale * rng.uniform(size=shape) * (rng.uniform(size=shape) > 0.5)
    page = viz.html_page(weights, [str(i) for i in range(shape[2])], [str(i) for i in range(shape[3])])
    stored = weights_in(page)
    assert (np.abs(stored - weights) <= weights.max() * (0.5 / 65535 + 1e-6)).all()
    assert (stored[weights == 0] == 0).all()


def test_fewer_axes_are_one_layer_or_one_head():
    weights = np.arange(6.0).reshape(2, 3)
    for axes in ((), (1,), (1, 1)):
        page = viz.html_page(weights.reshape(*axes, 2, 3), ["a", "b"], ["x", "y", "z"])
        assert contents(page)["shape"] == [1, 1, 2, 3]
    assert contents(page)["keys"] == ["x", "y", "z"]
    heads = viz.html_page(np.ones((4, 2, 2)), ["a", "b"])
    assert contents(heads)["shape"] == [1, 4, 2, 2]
    assert contents(heads)["keys"] == ["a", "b"]
    layers = viz.html_page(np.ones((2, 1, 2, 2)), ["a", "b"], layers=(3, 11))
    assert contents(layers)["layers"] == ["3", "11"]


@given(st.lists(st.one_of(st.sampled_from(NASTY), st.text(min_size=1)), min_size=1, max_size=4), st.sampled_from(NASTY))
def test_no_word_and_no_title_becomes_markup(tokens, title):
    plain = Page(viz.html_page(np.eye(len(tokens)), ["a"] * len(tokens)))
    text = viz.html_page(np.eye(len(tokens)), tokens, title=title)
    text.encode("utf-8")
    page = Page(text)
    assert page.elements == plain.elements
    assert page.elements.count("script") == 2
    data = text.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&") & set(data), "a comment or an end tag in JSON would swallow the page"
    assert "".join(page.texts["title"]).strip() == title.strip()


def test_words_are_stored_with_visible_white_space():
    tokens = [*NASTY[:7], "代码", " a", "\n", "\udc80"]
    data = contents(viz.html_page(np.eye(len(tokens)), tokens))
    assert data["queries"] == data["keys"] == [*NASTY[:7], "代码", "␣a", "⏎", "U+DC80"]


def test_the_page_loads_nothing():
    page = viz.html_page(np.eye(2), ["a", "b"])
    names = {name for name, _ in Page(page).attributes}
    assert names & {"src", "href", "srcset", "action"} == set()
    for loads in ("://", "//cdn", "url(", "@import", "fetch(", "XMLHttpRequest", "import("):
        assert loads not in page
    policy = dict(Page(page).attributes)["content"]
    assert policy.startswith("default-src 'none'")
    assert "{{" not in page


def test_twelve_layers_of_twelve_heads_stay_small():
    weights = np.random.default_rng(0).dirichlet(np.ones(64), (12, 12, 64))
    page = viz.html_page(weights, [f"token{i}" for i in range(64)])
    assert len(page.encode("utf-8")) < 1.7e6


def run_script(expression: str) -> object:
    """The value of a JavaScript expression after page.js."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = f"{SCRIPT.read_text(encoding='utf-8')}\nconsole.log(JSON.stringify({expression}));"
    done = subprocess.run([node, "-"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_script_reads_what_python_wrote():
    weights = np.random.default_rng(0).dirichlet(np.ones(5), (2, 3, 4))
    data = contents(viz.html_page(weights, list("abcd"), list("vwxyz")))
    maps = "[[0, 0], [1, 2], [1, -1]].map(([l, n]) => Array.from(attentionMap(data, l, n)))"
    actual = run_script(
        f"(() => {{ const data = {json.dumps(data)}; data.steps = decode(data.weights); return {maps}; }})()"
    )
    expected = [weights[0, 0], weights[1, 2], weights[1].mean(0)]
    np.testing.assert_allclose(actual, np.reshape(expected, (3, 20)), atol=1e-5)


def test_the_script_computes_rollout_and_entropy_as_python_does():
    weights = np.random.default_rng(0).dirichlet(np.ones(4), (3, 2, 4))
    weights[0, 1, 2] = 0  # a query without keys
    data = contents(viz.html_page(weights, list("abcd")))
    assert data["rollout"] is True
    actual = run_script(
        f"(() => {{ const data = {json.dumps(data)}; data.steps = decode(data.weights); return ["
        "Array.from(attentionMap(data, ROLLOUT, -1)),"
        "[0, 1, 2].map((l) => [0, 1].map((n) => entropyOf(attentionMap(data, l, n), 4))),"
        "entropyOf(new Float64Array(16), 4), entropyOf(new Float64Array(16).fill(0.3), 4)]; })()"
    )
    np.testing.assert_allclose(np.reshape(actual[0], (4, 4)), viz.rollout(weights), atol=1e-4)
    np.testing.assert_allclose(actual[1], viz.head_entropy(weights), atol=1e-4)
    assert actual[2:] == [None, None]  # all rows are empty; rows sum to 1.2


def test_rollout_is_offered_for_self_attention_of_several_layers():
    square = np.full((2, 1, 3, 3), 1 / 3)
    offered = lambda *arguments: contents(viz.html_page(*arguments))["rollout"]  # noqa: E731
    assert offered(square, list("abc"))
    assert not offered(square[:1], list("abc"))
    assert not offered(square, list("abc"), list("xyz"))
    assert not offered(2 * square, list("abc"))


def test_arrow_keys_numbers_colours_and_shortening_in_the_script():
    moves = run_script("['ArrowUp', 'ArrowDown', 'ArrowLeft', 'ArrowRight', 'x'].map((k) => moveCell(k, 0, 2, 2, 3))")
    assert moves == [[0, 2], [1, 2], [0, 1], [0, 2], None]
    assert run_script("[0, 0.00001, 0.123456, 1].map(number)") == ["0.0000", "< 0.0001", "0.1235", "1.0000"]
    assert run_script("['#ffffff', '#08306b', '#14171c', '#9ecbff'].map((c) => textColourOn(rgb(c)))") == [
        "#000000", "#ffffff", "#ffffff", "#000000",
    ]  # fmt: skip
    assert run_script("[shorten('代码代码', 3), shorten('abc', 3)]") == ["代码…", "abc"]
