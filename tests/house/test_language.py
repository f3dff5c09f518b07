"""The language of the code: no word of the old dialect, no docstring or page that has to be decoded."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.house.sources import ROOT, SOURCES

PAGES = sorted(
    {*ROOT.glob("*.md"), *(p for top in ("docs", "experiments", "benchmarks") for p in (ROOT / top).rglob("*.md"))}
)

OLD_NAMES = {
    "anchor",
    "crowd",
    "parted",
    "upright",
    "bends",
    "theirs",
    "ours",
    "asked",
    "remembered",
    "turned",
    "joined",
    "settled",
    "nudged",
    "halves",
    "unless_empty",
    "run_compiled",
    "plain_value",
    "Given",
    "Fixed",
    "Known",
    "Attended",
    "Cover",
    "Weighted",
    "BodyPair",
    "PairConfig",
    "SourceModel",
    "Reading",
    "Goal",
    "Follower",
    "Piece",
    "Problem",
    "PlainScore",
    "PlainMod",
    "PlainMask",
    "PlainNormalizer",
    "over_leading",
    "linear_time",
}
"""Words that no class, function, parameter or variable may have for a name; each has a field word in its place."""

PROSE = {
    "a private word": r"\b(crowd|parted|upright|nudged|unless_empty|whoever|sentence\.py|nothing that is none)\b",
    "a possessive without its noun": r"\b(ours|theirs)\b",
    "a preposition that English does not use so": r"\b(behind|beside) (it|them|the|each|a|an|every)\b",
    "a section that says nothing": (
        r"^[ \t]*(Raises|Args|Returns|Reference|Differs from PyTorch):\s*(Nothing|None|none|See `)[^\n]{0,20}$"
    ),
}

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("tests/house/test_language.py", "*"): "this file lists the words",
    ("CHANGELOG.md", "*"): "the history and the table of renamed names",
    (
        "experiments/corpora/grammar_words.py",
        "behind the house          在 房子 后面    0 2 0",
    ): "a phrase of the corpus",
    (
        "experiments/long_range/recall.py",
        "asked",
    ): "a field that is a command line option and a key of committed results",
}
"""(file, text of the line or * for any) -> the reason why it may stay."""


def prose(path: Path) -> list[tuple[int, str]]:
    """Texts of a file that people read, with the number of their first line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [(1, text)]
    strings = [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) > 2
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return strings + [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


@functools.cache
def allowed(path: Path, text: str) -> bool:
    name = path.relative_to(ROOT).as_posix()
    return any(file == name and place in ("*", text) for file, place in EXCEPTIONS)


def places(path: Path, pattern: str) -> list[str]:
    """`file:line: text` of every match that is no exception."""
    found = []
    for start, text in prose(path):
        for match in re.finditer(pattern, text, re.M):
            line = text[: match.start()].count("\n")
            words = text.splitlines()[line].strip()
            if not allowed(path, words):
                found.append(f"{path.relative_to(ROOT)}:{start + line}: {words}")
    return found


def names(tree: ast.Module) -> list[tuple[int, str]]:
    """Names that a module gives to classes, functions, parameters and variables."""
    given = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            given.append((node.lineno, node.name))
        elif isinstance(node, ast.arg):
            given.append((node.lineno, node.arg))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            given.append((node.lineno, node.id))
    return given


def summaries(tree: ast.Module) -> list[tuple[int, str]]:
    """First lines of docstrings."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    documented = [node for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node)]
    return [(node.body[0].lineno, ast.get_docstring(node).splitlines()[0]) for node in documented]


@pytest.mark.parametrize("what", PROSE)
def test_prose_is_free_of(what):
    files = [*SOURCES.values(), *PAGES]
    assert [place for path in files for place in places(path, PROSE[what])] == []


def test_no_name_is_from_the_old_dialect():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in SOURCES.values()
        for line, name in names(ast.parse(path.read_text(encoding="utf-8")))
        if name in OLD_NAMES and not allowed(path, name)
    ]
    assert wrong == []


def test_first_lines_of_docstrings_stand_alone():
    """At least three words, and no preposition in front of a noun that only the name above could supply."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in SOURCES.values()
        for line, text in summaries(ast.parse(path.read_text(encoding="utf-8")))
        if (len(text.split()) < 3 or re.match(r"(Of|For|By|With|Unless|If|Where|As|Or|And)\b[^,]*\.$", text))
        and not allowed(path, text)
    ]
    assert wrong == []


def test_the_guard_finds_what_it_forbids(tmp_path):
    module = tmp_path / "m.py"
    module.write_text('def joined(ours):\n    """Of tiles."""\n    x = "theirs is behind the wall"  # whoever reads\n')
    tree = ast.parse(module.read_text())
    assert {name for _, name in names(tree)} & OLD_NAMES == {"joined", "ours"}
    assert summaries(tree) == [(2, "Of tiles.")]
    texts = [text for _, text in prose(module)]
    assert [[what for what, pattern in PROSE.items() if re.search(pattern, text)] for text in texts] == [
        list(PROSE)[1:3],
        list(PROSE)[:1],
    ]


def test_every_exception_is_used():
    for file, place in EXCEPTIONS:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert place == "*" or place in text, f"{file}: {place}"
