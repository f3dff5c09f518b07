"""The documentation site: it builds without warnings, has every public name, and asks no other host for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from docs._site import links, reference
from tests.house.test_public_names import PUBLIC
from tests.support.browser import Browser, installed_browser

ROOT = Path(__file__).parent.parent
LOADED = re.compile(r'<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)="?([^"\s>]+)')
"""Addresses that a browser loads with a page."""
NOT_LOADED = re.compile(r'<link\b[^>]*\brel="?(?:canonical|alternate|prev|next)\b[^>]*>')
PHONE, DESKTOP = (390, 844), (1280, 900)


def test_the_reference_has_every_public_module():
    assert sorted(reference.MODULES) == sorted([*PUBLIC, "jax_attention.cache"])


def test_links_become_those_of_the_site():
    known = {"index.md", "rules/dot.md", "rules/README.md", "benchmarks/README.md", "experiments/x/a.png"}
    text = "[a](docs/rules/dot.md#cost) [b](benchmarks/README.md) [c](setup.py) [d](https://x.org) `[e](docs/f.md)`"
    expected = "[a](rules/dot.md#cost) [b](benchmarks/README.md) c [d](https://x.org) `[e](docs/f.md)`"
    assert links.rewrite(text, "index.md", known) == expected
    assert links.rewrite("[a](../../benchmarks/README.md)", "rules/dot.md", known) == "[a](../benchmarks/README.md)"
    assert links.rewrite("![a](../../experiments/x/a.png)", "rules/dot.md", known) == "![a](../experiments/x/a.png)"
    assert links.rewrite("[rules](docs/rules/)", "index.md", known) == "[rules](rules/README.md)"
    assert links.rewrite("[r](../README.md)", "stability.md", known) == "[r](index.md)"
    assert links.rewrite("![no such picture](b.png)", "rules/dot.md", known) == "![no such picture](b.png)"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    return folder


@pytest.mark.slow
def test_every_public_name_is_in_the_inventory(site):
    header, body = (site / "objects.inv").read_bytes().split(b"zlib.\n", 1)
    assert header.startswith(b"# Sphinx inventory version 2")
    listed = {line.split(" ")[0] for line in zlib.decompress(body).decode().splitlines()}
    public = {f"{name}.{x}" for name in PUBLIC for x in PUBLIC[name].split()} - set(reference.MODULES)
    catalogues = {f"{name}.CATALOGUE" for name in PUBLIC}
    assert public - listed - catalogues - {"jax_attention.data.tasks"} == set()
    assert {"jax_attention.cache.append", "jax_attention.cache.create"} <= listed


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 90
    loaded = {x for page in pages for x in LOADED.findall(NOT_LOADED.sub("", page.read_text(encoding="utf-8")))}
    assert [x for x in loaded if re.match(r"(https?:)?//", x)] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"url\([\"']?(?:https?:)?//[^)]*\)|@import[^;]*//[^;]*;", styles) == []


@pytest.mark.slow
def test_examples_and_formulas_are_rendered(site):
    page = (site / "reference" / "masks.html").read_text(encoding="utf-8")
    assert "<blockquote>" not in page  # an example that was read as prose
    cells = "".join(re.findall(r"<td.*?</td>", (site / "coming_from.html").read_text(encoding="utf-8"), re.S))
    assert "<code>" in cells
    assert r"\|" not in cells
    rule = (site / "rules" / "entmax15.html").read_text(encoding="utf-8")
    assert rule.count("<math ") >= 1
    assert not any("arithmatex" in path.read_text(encoding="utf-8") for path in (site / "rules").glob("*.html"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = installed_browser()
    if program is None:
        pytest.skip("no browser: apt-get install chromium on Debian brings one")
    browser = Browser(program, tmp_path_factory.mktemp("browser") / "profile")
    yield browser
    browser.close()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_every_page_in_a_browser(site, browser, width, height):
    browser.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    faults = {}
    for page in sorted(site.rglob("*.html")):
        browser.open(page)
        requests = [x["params"]["request"]["url"] for x in browser.events if x["method"] == "Network.requestWillBeSent"]
        assert requests
        found = [url for url in requests if not re.match(r"(file|data|blob):", url)]
        found += browser.value("[...document.images].filter(x => !(x.complete && x.naturalWidth)).map(x => x.src)")
        if browser.value("document.documentElement.scrollWidth") > width:
            found.append("wider than the window")
        if not browser.value("[...document.querySelectorAll('math')].every(x => x.getBoundingClientRect().height > 8)"):
            found.append("a formula without height")
        faults |= {page.name: found} if found else {}
    assert faults == {}


@pytest.mark.slow
def test_search_works_from_the_disk(site, browser):
    browser.send("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    browser.send("Page.navigate", url=(site / "index.html").as_uri() + "?q=sparsemax")
    links, until = "[...document.querySelectorAll('.md-search-result__link')].map(x => x.href)", time.monotonic() + 60
    while not any("normalizers.html" in link for link in browser.value(links)):
        assert time.monotonic() < until, "no result for sparsemax within 60 seconds"
        time.sleep(0.1)
