"""Write `docs/tree.md`: every Python file and page of the project with the first sentence of its docstring.

python -m docs._draw.tree
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tree.md"
HEAD = """# Every file

Made from the docstrings by `python -m docs._draw.tree`. Figures and results lie next to the code that writes them.
"""


def project_files() -> list[str]:
    """Sorted paths of the Python files and pages that git tracks, or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    paths = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(p for p in set(paths) if p.endswith((".py", ".md")) and (ROOT / p).exists())


def caption(path: Path) -> str:
    """First sentence of a module's docstring, or the title of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        title = re.search(r"^# (.+)$", text, re.M)
        return title[1] if title else ""
    summary = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[.?!])\s|[.:]$", summary)[0].rstrip(".:")


def page(files: Iterable[str]) -> str:
    """The text of the page: one section for each folder, one line for each file."""
    sections: dict[str, list[str]] = {}
    for name in files:
        top, _, rest = name.rpartition("/") if "/" not in name else (name.split("/")[0], "", name)
        sections.setdefault(top or ".", []).append(f"| `{rest}` | {caption(ROOT / name).replace('|', chr(92) + '|')} |")
    table = "\n## {}\n\n| file | what it holds |\n|---|---|\n{}\n"
    titles = {".": "The project"}
    return HEAD + "".join(table.format(titles.get(top, top), "\n".join(rows)) for top, rows in sorted(sections.items()))


if __name__ == "__main__":
    PAGE.write_text(page(project_files()), encoding="utf-8")
