"""Links of the repository's pages, as links of the site.

The site has the pages of `docs/` at its root, and next to them the README files, the changelog and the pictures that
pages show, under their path in the repository. A link to any other file of the repository, such as a source file, has
no target in the site: its text stays.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTSIDE_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md", "experiments/README.md")
"""Pages of the site that do not lie in `docs/`."""
HOME = "index.md"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|^ {4}[^\n]*$|`[^`\n]+`(?!\])", re.M | re.S)
"""Fenced, indented and inline code, in which nothing is a link."""
PICTURES = (".png", ".svg")


def site_path(path: str) -> str:
    """The path in the site's sources of a path in the repository."""
    return HOME if path == "README.md" else path.removeprefix("docs/")


def repository_path(source: str) -> str:
    """The inverse of `site_path`."""
    if source == HOME:
        return "README.md"
    return source if source in OUTSIDE_PAGES else f"docs/{source}"


def links_in(text: str) -> list[str]:
    """Targets of all links and pictures outside of code."""
    return [target for _, _, target in LINK.findall(CODE.sub("", text))]


def outside_pages_and_pictures() -> list[str]:
    """Paths in the repository of the pages outside of `docs/`, and of the pictures there that any page shows."""
    pages = [*OUTSIDE_PAGES, *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
    targets = {
        posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        for page in pages
        for target in links_in((ROOT / page).read_text(encoding="utf-8"))
        if target.endswith(PICTURES)
    }
    return [*OUTSIDE_PAGES, *sorted(x for x in targets if not x.startswith("docs/") and (ROOT / x).exists())]


def rewrite(text: str, source: str, known: set[str]) -> str:
    """The page `source` of the site with its links made relative to the site; `known` are the paths of its files."""
    folder = posixpath.dirname(repository_path(source))

    def link(match: re.Match) -> str:
        if re.match(r"[a-z]+:|#", match[3]):
            return match[0]
        target, _, fragment = match[3].partition("#")
        path = posixpath.normpath(posixpath.join(folder, target))
        pages = (site_path(path), site_path(posixpath.normpath(f"{path}/README.md")))  # a file, or a folder's page
        path = next((page for page in pages if page in known), None)
        if path is None:  # a picture keeps its link, so that mkdocs reports it as missing
            return match[0] if match[1] else match[2]
        relative = posixpath.relpath(path, posixpath.dirname(source) or ".")
        return f"{match[1]}[{match[2]}]({relative}{'#' + fragment if fragment else ''})"

    pieces, last = [], 0
    for code in CODE.finditer(text):
        pieces += [LINK.sub(link, text[last : code.start()]), code[0]]
        last = code.end()
    return "".join([*pieces, LINK.sub(link, text[last:])])
