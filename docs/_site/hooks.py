"""Hooks of mkdocs: pages from outside of `docs/`, links between them, the API reference, and formulas as MathML."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.structure.files import File, Files

from docs._site import links, mathml, reference


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the repository that lie outside of `docs/`, their pictures, and the pages of the reference."""
    for path in links.outside_pages_and_pictures():
        files.append(File.generated(config, links.site_path(path), abs_src_path=str(links.ROOT / path)))
    for name, text in reference.pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Make the links of a page those of the site."""
    return links.rewrite(markdown, page.file.src_uri, {file.src_uri for file in files})


def on_page_content(html: str, **_: Any) -> str:
    """Replace TeX by MathML, which browsers draw without scripts and fonts from elsewhere.

    In a cell of a table, Markdown needs the backslash of `\\|` also within code, and mkdocs leaves it there.
    """
    cells = re.sub(r"<td\b.*?</td>", lambda cell: cell[0].replace(r"\|", "|"), html, flags=re.S)
    return mathml.replace_tex(cells)
