"""The page of all files and the folders in the README are what lies on the disk."""

from __future__ import annotations

import re

from docs._draw import tree
from tests.house.sources import ROOT


def folders_in(readme: str) -> list[str]:
    """Folders in the fenced block below the heading 'The tree'."""
    block = re.search(r"^#+ The tree\s*?$.*?^```\w*\n(.*?)^```", readme, re.M | re.S)
    assert block, "README.md has no fenced block below a heading 'The tree'"
    return re.findall(r"(?<!\S)[\w/]+/(?=\s)", block[1])


def test_page_of_all_files_is_up_to_date():
    expected = tree.page(tree.project_files())
    assert tree.PAGE.read_text(encoding="utf-8") == expected, "run `python -m docs._draw.tree`"


def test_caption_is_the_first_sentence(tmp_path):
    module, page = tmp_path / "a.py", tmp_path / "b.md"
    module.write_text('"""Rows of a\ntable. More.\n\nText."""\n', encoding="utf-8")
    page.write_text("text\n# A title\n## Another\n", encoding="utf-8")
    assert (tree.caption(module), tree.caption(page)) == ("Rows of a table", "A title")


def test_folders_of_the_readme_exist_and_are_complete():
    listed = folders_in((ROOT / "README.md").read_text(encoding="utf-8"))
    library = {f"jax_attention/{p.name}/" for p in (ROOT / "jax_attention").iterdir() if (p / "__init__.py").exists()}
    assert sorted(listed) == sorted({"jax_attention/", *library, "experiments/", "benchmarks/", "docs/", "tests/"})
