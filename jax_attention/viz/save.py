"""Write a picture or a page to a file, completely or not at all."""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.files import replaced_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
DOTS_PER_INCH = 160
PIXELS_PER_INCH = 96
"""Size of an inch in browsers: a notebook shows figures at their size, with more dots than pixels on sharp screens."""


def save(drawn: Figure | str, path: str | os.PathLike) -> Path:
    """Write a figure as PNG, SVG or PDF, or a page as HTML, by the suffix of the path.

        draw in memory  ->  write to a temporary file in the same folder  ->  rename it to the path

    An older file of that name is replaced in one step, after the new one is complete: a reader never sees a partial
    file, and a failure leaves the old one unchanged. SVG files have letters as outlines, so they need no font.

    Args:
        drawn: a figure of this package or of matplotlib, or a page of `html_page`.
        path: a path that ends in .png, .svg or .pdf for a figure, in .html for a page; its folder must exist.

    Returns:
        The path.

    Raises:
        ValueError: if the suffix is another one, or that of a page for a figure or the reverse.
        FileNotFoundError: if the folder does not exist.
        TypeError: if `drawn` is neither a figure nor a page.

    Example:
        >>> import tempfile, numpy as np
        >>> from jax_attention import viz
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     viz.save(viz.html_page(np.eye(2), ["a", "b"]), f"{folder}/page.html").name
        'page.html'

    Reference:
        POSIX.1-2017, `rename`: at any time the name refers either to the old file or to the new one.
    """
    path = Path(path)
    is_page = isinstance(drawn, str)
    fail_unless(
        is_page or hasattr(drawn, "savefig"),
        f"drawn: expected a matplotlib figure, or the page that html_page returns, got {describe_array(drawn)}.",
        TypeError,
    )
    allowed = (".html",) if is_page else PICTURES
    fail_unless(
        path.suffix.lower() in allowed,
        f"path: expected a name that ends in {', '.join(allowed)} for a {'page' if is_page else 'figure'}, got "
        f"{str(path)!r}.",
    )
    fail_unless(
        path.parent.is_dir(),
        f"path: expected an existing folder, got {str(path.parent)!r}, which does not exist. Create it first: "
        "Path(path).parent.mkdir(parents=True).",
        FileNotFoundError,
    )
    content = drawn.encode("utf-8") if is_page else _picture(drawn, path.suffix.lower())
    with replaced_file(path) as file:
        file.write(content)
    return path


def show_in_notebooks(figure: Figure) -> Figure:
    """Let a notebook show the figure, also without `%matplotlib inline`.

    Notebooks ask an object for `_repr_png_`. matplotlib has it only after pyplot was imported, which is not used here.
    The method belongs to this figure: it stays a plain `Figure`, and other figures of the session are not touched.
    Where `%matplotlib inline` was run, its settings decide.
    """
    figure._repr_png_ = partial(_notebook_picture, figure)
    return figure


def _notebook_picture(figure: Figure) -> tuple[bytes, dict[str, int]]:
    """The figure as PNG, and its size in pixels of the browser."""
    width, height = (round(PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
    return _picture(figure, ".png"), {"width": width, "height": height}


def _picture(figure: Figure, suffix: str) -> bytes:
    # No date in the file, so that the same figure gives the same bytes.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": None}[suffix]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=metadata)
    return buffer.getvalue()
