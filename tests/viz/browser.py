"""A real browser without a window: Chromium, spoken to over a pipe in its own protocol; no package is needed."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from jax_attention.viz.fonts import bundled_fonts

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1000,1400", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 600
"""Seconds for one answer: far more than it takes, since other tests may load the machine."""
JOINED = 'exec "$@" 3<&"$READS" 4>&"$WRITES"'
"""Chromium reads commands from file 3 and answers in file 4."""


def installed() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def font_settings(folder: Path) -> dict[str, str]:
    """Environment with the bundled font as the only one: on a machine without any font Chromium ends at once."""
    fonts = sorted({Path(path).parent for path in bundled_fonts()})
    assert fonts, "the package zhplot, of the viz extra, brings a font"
    config = folder / "fonts.conf"
    lines = "".join(f"<dir>{path}</dir>" for path in fonts)
    config.write_text(f"<fontconfig>{lines}<cachedir>{folder}</cachedir></fontconfig>\n", encoding="utf-8")
    return {"FONTCONFIG_FILE": str(config)}


class Browser:
    """One page of a headless Chromium: cut off from every network, with a mouse that really moves."""

    def __init__(self, program: str, profile: Path):
        reads, commands = os.pipe()
        answers, writes = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes)]  # 3 and 4 must be free
        self.process = subprocess.Popen(
            ["bash", "-c", JOINED, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=ends,
            env={**os.environ, **font_settings(profile.parent), "READS": str(ends[0]), "WRITES": str(ends[1])},
            stderr=subprocess.DEVNULL,
        )
        for end in (reads, writes, *ends):
            os.close(end)
        self.commands, self.answers, self.left = commands, answers, b""
        self.numbers, self.session, self.events = itertools.count(1), None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Network", "Runtime"):
            self.ask(f"{part}.enable")
        self.ask(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what happens meanwhile goes to `events`."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == number:
                assert "error" not in got, f"{method}: {got['error']}"
                return got["result"]
            self.events.append(got)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.left:
            ready, _, _ = select.select([self.answers], [], [], max(until - time.monotonic(), 0))
            assert ready, f"the browser did not answer within {PATIENCE} seconds"
            more = os.read(self.answers, 2**16)
            assert more, "the browser has ended"
            self.left += more
        message, self.left = self.left.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path) -> None:
        """Load a file and wait until its script has run."""
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        until = time.monotonic() + PATIENCE
        while self.value("document.readyState") != "complete" or self.value("location.href") == "about:blank":
            assert time.monotonic() < until, "the page did not load"
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        """What an expression is worth on the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def point(self, x: float, y: float, click: bool = False) -> None:
        """Move the mouse to a place of the window, and perhaps click there."""
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def middle(self, element: str) -> tuple[float, float]:
        """The middle of what an expression gives, in the window."""
        box = self.value(
            f"(({element}).scrollIntoView({{block: 'nearest'}}), ({element}).getBoundingClientRect().toJSON())"
        )
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def close(self) -> None:
        """End it, by its own command."""
        self.session = None
        self.ask("Browser.close")
        self.process.wait(PATIENCE)
        os.close(self.commands)
        os.close(self.answers)
