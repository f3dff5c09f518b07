"""The tree in the README is the disk: every file once, and no file that is gone."""

from __future__ import annotations

import re
import subprocess

from tests.house.sources import ROOT


def paths_in_tree(readme: str) -> list[str]:
    """Paths in the fenced block below the heading 'The tree': one file per line, or a folder with a trailing slash."""
    block = re.search(r"^#+ The tree\s*?$.*?^```\w*\n(.*?)^```", readme, re.M | re.S)
    assert block, "README.md has no fenced block below a heading 'The tree'"
    return [line.split()[0].rstrip("…") for line in block[1].splitlines() if line.strip()]


def tree_against_disk(tree: list[str], disk: set[str]) -> dict[str, list[str]]:
    folders = tuple(path for path in tree if path.endswith("/"))
    empty = [folder for folder in folders if not any(path.startswith(folder) for path in disk)]
    files = {path for path in tree if not path.endswith("/")}
    return {
        "listed twice": sorted({path for path in tree if tree.count(path) > 1}),
        "in the README, not on disk": sorted([*files - disk, *empty]),
        "on disk, not in the README": sorted(path for path in disk - files if not path.startswith(folders)),
    }


def test_the_tree_in_the_readme_is_the_disk():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    disk = {path for path in listed if path and (ROOT / path).exists()}
    found = tree_against_disk(paths_in_tree((ROOT / "README.md").read_text(encoding="utf-8")), disk)
    wrong = [f"{what}: {', '.join(paths)}" for what, paths in found.items() if paths]
    assert wrong == [], "\n".join(wrong)


def test_the_guard_of_the_tree_sees_what_is_wrong():
    readme = "# X\n\n## The tree\n\n```\na.py      one\na.py      two\ngone.py   x\ndocs/     all\n```\n"
    found = tree_against_disk(paths_in_tree(readme), {"a.py", "docs/b.md", "docs/c/d.md", "new.py"})
    assert list(found.values()) == [["a.py"], ["gone.py"], ["new.py"]]
