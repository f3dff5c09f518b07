"""One HTML file that holds a whole model's attention on one sentence, to be explored in a browser.

The page itself is `web/page.html`, `page.css` and `page.js`, hand-written and put together here. It loads nothing: its
own security policy forbids it.
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
from jax_attention.viz.checks import ROW_SLACK, check_both_labels, check_layers, check_title, check_weights
from jax_attention.viz.labels import visible

if TYPE_CHECKING:
    from jaxtyping import Array, Float

STEPS = 2**16 - 1
MOST = 2**24
"""Weights in one page: 12 layers of 12 heads over 341 words. Base64 of two bytes each makes 45 MB of it."""


def html_page(
    weights: Float[Array, "L N T S"] | Float[Array, "N T S"] | Float[Array, "T S"],
    tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    layers: Sequence[object] | None = None,
    title: str = "Attention",
) -> str:
    """One self-contained page: choose layer and head, point at words to read weights, click a word to fix its row.

        page = text + style + script + tokens + base64 of round(65535 weights / largest weight of the map)

    The words of the keys are coloured as a strip for the query. Each head shows its mean entropy; several layers of
    self-attention whose rows sum to 1 at most can be followed by rollout, as if it were one more layer. The page needs
    a browser but no network, no file beside it and no matplotlib. Weights are kept to 1/131070 of the largest
    of their map, zeros exactly. Works with the mouse and with the keyboard, on light and on dark screens.

    Args:
        weights: `[L, N, T, S]`: layers, heads, queries, keys; or one layer, or one head. Finite and not negative.
        tokens: T words, of the queries.
        key_tokens: S words, of the keys; those of the queries if None, as in self-attention.
        layers: names or numbers of the L layers; 0 … L-1 if None.
        title: of the page.

    Returns:
        The page; `save(page, "attention.html")` writes it. About 2.7 bytes per weight: 12 layers of 12 heads over 64
        words are 1.6 MB.

    Raises:
        ValueError: if weights have another rank, no entry, NaN, infinite or negative entries, more than 2^24 entries,
            or the number of tokens or layers does not fit.
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
        array.size <= MOST,
        f"weights: expected at most {MOST} weights in one page, got {describe_array(array)}. Choose some layers "
        "(and name them: layers=(0, 5)), heads or words.",
    )
    fail_unless(tokens is not None, "tokens: expected words, got None. Number them: [str(i) for i in range(T)].")
    queries, keys = check_both_labels(("tokens", "key_tokens"), tokens, key_tokens, array.shape)
    names = check_layers(layers, array.shape[0])
    largest = array.max(axis=(-2, -1))
    steps = np.round(array / np.where(largest > 0, largest, 1.0)[..., None, None] * STEPS)
    data = {
        "shape": array.shape,
        "layers": [visible(name) for name in names],
        "queries": [visible(token) for token in queries],
        "keys": [visible(token) for token in keys],
        "rollout": array.shape[0] > 1 and queries == keys and bool(array.sum(axis=-1).max() <= 1 + ROW_SLACK),
        "largest": [float(f"{x:.7g}") for x in largest.ravel()],
        "weights": base64.b64encode(steps.astype("<u2").tobytes()).decode("ascii"),
    }
    heading = html.escape(title.encode("utf-8", "replace").decode("utf-8"))  # a lone surrogate could not be saved
    return _fill("page.html", title=heading, style=_read("page.css"), data=_json(data), script=_read("page.js"))


def _json(data: object) -> str:
    """JSON that may stand inside of a script element: no character that HTML could take for a tag or an entity."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _read(name: str) -> str:
    return resources.files("jax_attention.viz").joinpath("web", name).read_text(encoding="utf-8").rstrip("\n")


def _fill(name: str, **parts: str) -> str:
    """The template with each `{{part}}` replaced; what is put in is not searched again."""
    pieces = _read(name).split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        part, rest = piece.split("}}", 1)
        filled += [parts[part], rest]
    return "".join(filled)
