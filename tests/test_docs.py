"""Guards of the documentation: a page, a picture and an index line for every rule; examples run; links resolve."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jax_attention import masks, mods, normalizers, positions, scores
from tests.support.tiers import slow_except

ROOT = Path(__file__).parent.parent
RULES = ROOT / "docs" / "rules"
SECTIONS = (
    "Equation",
    "Picture",
    "What it swaps",
    "Example",
    "Cost",
    "When not to use it",
    "Reference",
)
PARTS = {"score": scores, "mod": mods, "mask": masks, "normalizer": normalizers, "position": positions}
CATALOGUE = {rule.__name__: part for part, package in PARTS.items() for rule in package.CATALOGUE}
PAGES = sorted((ROOT / "docs").rglob("*.md"))
LINKING = [*PAGES, ROOT / "README.md", ROOT / "experiments" / "README.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def sessions(text: str) -> list[str]:
    """The Python blocks that are interactive sessions."""
    return [code for language, code in FENCE.findall(text) if language == "python" and ">>> " in code]


def links(text: str) -> list[str]:
    """Targets of relative links and images, without fenced code, indented code and code in a line."""
    text = re.sub(r"^ {4}.*$", "", FENCE.sub("", text), flags=re.M)
    found = re.findall(r"\]\(\s*<?([^)\s>]+)", re.sub(r"`[^`\n]*`(?!\])", "", text))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(text: str) -> set[str]:
    """What `#fragment` may point to, as GitHub spells it."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_rule_has_a_page_and_every_page_a_rule():
    assert len(CATALOGUE) == sum(len(package.CATALOGUE) for package in PARTS.values()), "two rules of one name"
    assert sorted(path.stem for path in RULES.glob("*.md") if path.stem != "README") == sorted(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_page_has_all_sections_in_order(name):
    text = read(RULES / f"{name}.md")
    package = PARTS[CATALOGUE[name]].__name__.removeprefix("jax_attention.")
    assert text.startswith(f"# `{package}.{name}`\n")
    assert tuple(re.findall(r"^## (.*)$", text, re.M)) == SECTIONS
    bodies = re.split(r"^## .*$", text, flags=re.M)[1:]
    assert [title for title, body in zip(SECTIONS, bodies, strict=True) if not body.strip()] == []
    assert 25 <= len(text.splitlines()) <= 60
    assert sessions(bodies[SECTIONS.index("Example")]), "an example that runs"
    assert f"img/{name}.svg" in links(bodies[SECTIONS.index("Picture")])


def test_index_lists_every_rule_once():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \| \[\w+\.md\]\((\w+)\.md\) \|$", read(RULES / "README.md"), re.M)
    assert [(name, part, page) for name, part, _, page in rows] == [(n, p, n) for n, p in CATALOGUE.items()]


def test_every_picture_belongs_to_a_rule():
    assert sorted(path.stem for path in (RULES / "img").glob("*.svg")) == sorted(CATALOGUE)


QUICK = [
    *(RULES / f"{rule}.md" for rule in ("causal", "dot", "learned", "softmax", "temperature")),
    *(ROOT / "docs" / page for page in ("coming_from.md", "data.md", "experiments/batched_product.md")),
]
"""One page of every part of a rule, and pages that compile next to nothing."""
RUN = [path for path in (ROOT / "README.md", *PAGES) if sessions(read(path))]


@pytest.mark.parametrize("path", slow_except(QUICK, RUN), ids=short)
def test_examples_run(path):
    session = doctest.DocTestParser().get_doctest("\n".join(sessions(read(path))), {}, short(path), str(path), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    printed: list[str] = []
    with np.printoptions():  # pages set print options; give them back
        result = runner.run(session, out=printed.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(printed)


@pytest.mark.parametrize("path", LINKING, ids=short)
def test_links_resolve(path):
    broken = []
    for link in links(read(path)):
        file, _, fragment = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (fragment and target.suffix == ".md" and fragment not in anchors(read(target))):
            broken.append(link)
    assert broken == []


def test_link_reader_finds_links_and_skips_code():
    text = "[a](b.md) ![c](d/e.svg#f) [g](https://h) `[i](j)`\n\n    [k](l)\n\n```python\nm[n](o)\n```\n[`p`](q.md)\n"
    assert links(text) == ["b.md", "d/e.svg#f", "q.md"]


def same_picture(one: str, other: str) -> bool:
    """Text and structure equal, coordinates to a hundredth of a point: the last bit of a float may move a line."""
    number = re.compile(r"-?\d+\.\d+")
    (one, here), (other, there) = ((number.sub("#", x), [float(n) for n in number.findall(x)]) for x in (one, other))
    return one == other and bool(np.allclose(here, there, rtol=0, atol=0.01))


def test_pictures_are_compared_to_a_hundredth():
    line = '<path d="M 1.25 2.5" id="m0"/>'
    assert same_picture(line, line.replace("2.5", "2.5004"))
    assert not same_picture(line, line.replace("2.5", "2.6"))
    assert not same_picture(line, line.replace("m0", "m1"))
    assert not same_picture(line, line.replace(" 2.5", ""))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_pictures_are_what_the_code_draws(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    drawn_by = read(RULES / "img" / "VERSION").strip()
    if drawn_by != f"matplotlib {matplotlib.__version__}":
        pytest.skip(f"the committed pictures were drawn by {drawn_by}")
    if jax.default_backend() != "cpu":
        pytest.skip("the committed pictures were drawn on a CPU")
    from docs import pictures

    pictures.main(tmp_path)
    drawn = {path.relative_to(tmp_path): read(path) for path in sorted(tmp_path.rglob("*.svg"))}
    kept = {path.relative_to(ROOT / "docs"): read(path) for path in sorted((ROOT / "docs").rglob("*.svg"))}
    assert sorted(drawn) == sorted(kept)
    changed = [str(name) for name in kept if not same_picture(kept[name], drawn[name])]
    assert changed == [], "run python -m docs.pictures"
