"""HTML page with the attention of a whole model on one sentence, to explore in a browser.

The page consists of `web/page.html`, `page.css` and `page.js`, which are put together here with the weights. It loads
nothing; its content security policy forbids it.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.html import show_page
from jax_attention.viz.checks import ROW_SLACK, check_both_labels, check_layers, check_title, check_weights
from jax_attention.viz.labels import show_white_space

if TYPE_CHECKING:
    from jaxtyping import Array, Float

MAX_STEP = 2**16 - 1
"""Weights are stored as multiples of the largest weight of their map / MAX_STEP, in two bytes."""
MAX_WEIGHTS = 2**24
"""Limit of a page: 12 layers of 12 heads over 341 words, which make 45 MB in base64."""
MAX_WORDS = 4096
"""Most queries or keys: browsers paint no canvas of more than 16,384 pixels squared."""
MAX_MAPS = 2**14
"""Most heads in all layers; each has a small picture of its own on the page."""


PAGE_HEIGHT = 640
"""Height of the page in a notebook, in pixels: controls, a map of 12 words, and both texts."""


class Page(str):
    """The page as text, which a notebook shows as the page: in a frame, which its script and styles cannot leave."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Page({len(self):,} characters)"

    def _repr_html_(self) -> str:
        return show_page(self, height=PAGE_HEIGHT, scripts=True)


def html_page(
    weights: Float[Array, "L N T S"] | Float[Array, "N T S"] | Float[Array, "T S"],
    tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    layers: Sequence[object] | None = None,
    title: str = "Attention",
) -> str:
    """Make a self-contained page: choose layer and head, point at words to read weights, click a word to fix its row.

        page = text + style + script + tokens + base64 of round(65535 weights / largest weight of the map)

    The words of the keys are coloured by their weights for the query. Each head shows its mean entropy; several layers
    of self-attention whose rows sum to at most 1 can be combined by rollout, which is chosen like a layer. The page
    needs a browser but no network, no other file and no matplotlib. The error of a weight is at most 1/131070 of the
    largest of its map; zeros are exact. Mouse and keyboard work, on light and on dark screens.

    Args:
        weights: `[L, N, T, S]`: layers, heads, queries, keys; or one layer, or one head. Finite and not negative.
        tokens: T words of the queries.
        key_tokens: S words of the keys; those of the queries if None, as in self-attention.
        layers: names or numbers of the L layers; 0 … L-1 if None.
        title: title of the page.

    Returns:
        The page, a `str` that a notebook shows as the page; `save(page, "attention.html")` writes it. About 2.7 bytes
        per weight: 12 layers of 12 heads over 64 words are 1.6 MB.

    Raises:
        ValueError: if weights have another rank, no entry, NaN, infinite or negative entries, more than 2^24 entries,
            more than 4096 queries or keys, more than 2^14 heads, or the number of tokens or layers does not fit.
        TypeError: if weights are traced or not real, or tokens are not strings.

    Example:
        >>> import numpy as np
        >>> from jax_attention import viz
        >>> page = viz.html_page(np.eye(2), ["<b>", "代码"], title="A & B")
        >>> "<title>A &amp; B</title>" in page, "<b>" in page, "代码" in page
        (True, False, True)

    Reference:
        Vig (2019), "A multiscale visualization of attention in the transformer model", section 2.1.
    """
    array, title = check_weights(weights, (2, 3, 4)), check_title(title)
    array = array.reshape(*(1,) * (4 - array.ndim), *array.shape)
    fail_unless(
        array.size <= MAX_WEIGHTS,
        f"weights: expected at most {MAX_WEIGHTS} weights in one page, got {describe_array(array)}. Choose some layers "
        "(and name them: layers=(0, 5)), heads or words.",
    )
    fail_unless(
        max(array.shape[-2:]) <= MAX_WORDS,
        f"weights: expected at most {MAX_WORDS} queries and keys in one page, got {describe_array(array)}. Choose a "
        "part of the text: weights[..., :512, :512].",
    )
    fail_unless(
        array.shape[0] * array.shape[1] <= MAX_MAPS,
        f"weights: expected at most {MAX_MAPS} heads in one page, got {describe_array(array)}. Choose some layers "
        "(and name them: layers=(0, 5)) or heads.",
    )
    fail_unless(tokens is not None, "tokens: expected words, got None. Number them: [str(i) for i in range(T)].")
    queries, keys = check_both_labels(("tokens", "key_tokens"), tokens, key_tokens, array.shape)
    names = check_layers(layers, array.shape[0])
    largest = array.max(axis=(-2, -1))
    steps = np.round(array / np.where(largest > 0, largest, 1.0)[..., None, None] * MAX_STEP)
    data = {
        "shape": array.shape,
        "layers": [show_white_space(name) for name in names],
        "queries": [show_white_space(token) for token in queries],
        "keys": [show_white_space(token) for token in keys],
        "rollout": array.shape[0] > 1 and queries == keys and bool(array.sum(axis=-1).max() <= 1 + ROW_SLACK),
        "largest": [float(f"{x:.7g}") for x in largest.ravel()],
        "weights": base64.b64encode(steps.astype("<u2").tobytes()).decode("ascii"),
    }
    # A lone surrogate in the title would fail to encode when the page is saved.
    heading = html.escape(title.encode("utf-8", "replace").decode("utf-8"))
    parts = {"style": _read("page.css"), "data": _json(data), "script": _read("page.js")}
    return Page(_fill("page.html", title=heading, **parts))


def _json(data: object) -> str:
    """JSON for a script element: characters that HTML could read as a tag or an entity are escaped."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _read(name: str) -> str:
    return resources.files("jax_attention.viz").joinpath("web", name).read_text(encoding="utf-8").rstrip("\n")


def _fill(name: str, **parts: str) -> str:
    """Replace each `{{part}}` of the template once; inserted text is not searched, so a token "{{title}}" stays."""
    first, *sections = _read(name).split("{{")
    result = [first]
    for section in sections:
        part, rest = section.split("}}", 1)
        result += [parts[part], rest]
    return "".join(result)
