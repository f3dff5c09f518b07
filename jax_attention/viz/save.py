"""Write a picture or a page, completely or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.files import replaced_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
DOTS_PER_INCH = 160


def save(drawn: Figure | str, path: str | os.PathLike) -> Path:
    """Write a figure as PNG, SVG or PDF, or a page as HTML, by the suffix of the path.

        draw in memory  ->  write under another name beside the path  ->  rename it to the path

    An older file of that name is replaced in one step, and only after the new one is complete: nobody ever sees half a
    picture, and a failure leaves the old one as it was. SVG carries its letters as outlines, so it needs no font.

    Args:
        drawn: a figure made here or by matplotlib, or what `html_page` returned.
        path: ends in .png, .svg or .pdf for a figure, in .html for a page; its folder must exist.

    Returns:
        The path.

    Raises:
        ValueError: if the suffix is another one, or does not fit what was drawn.
        FileNotFoundError: if the folder does not exist.
        TypeError: if `drawn` is neither a figure nor a page.

    Example:
        >>> import tempfile, numpy as np
        >>> from jax_attention import viz
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     viz.save(viz.html_page(np.eye(2), ["a", "b"]), f"{folder}/page.html").name
        'page.html'

    Reference:
        POSIX.1-2017, `rename`: the new name is at any time either the old file or the new one.
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
        f"path: expected an existing folder, got {str(path.parent)!r}, which is none. Create it first: "
        "Path(path).parent.mkdir(parents=True).",
        FileNotFoundError,
    )
    content = drawn.encode("utf-8") if is_page else _picture(drawn, path.suffix.lower())
    with replaced_file(path) as file:
        file.write(content)
    return path


def _picture(figure: Figure, suffix: str) -> bytes:
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": None}[suffix]
    written = io.BytesIO()
    figure.savefig(written, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=undated)
    return written.getvalue()
