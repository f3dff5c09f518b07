"""A headless Chromium, controlled over a pipe by the DevTools protocol; no package is needed."""

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
TIMEOUT = 600
"""Seconds for one answer; long, because other tests may load the machine."""
CONNECT_PIPES = 'exec "$@" 3<&"$READS" 4>&"$WRITES"'
"""Chromium reads commands from file descriptor 3 and writes answers to 4."""


def installed_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def font_settings(folder: Path) -> dict[str, str]:
    """Environment with the bundled font as the only one; without any font Chromium exits at once."""
    fonts = sorted({Path(path).parent for path in bundled_fonts()})
    assert fonts, "the package zhplot, of the viz extra, brings a font"
    config = folder / "fonts.conf"
    lines = "".join(f"<dir>{path}</dir>" for path in fonts)
    config.write_text(f"<fontconfig>{lines}<cachedir>{folder}</cachedir></fontconfig>\n", encoding="utf-8")
    return {"FONTCONFIG_FILE": str(config)}


class Browser:
    """One page of a headless Chromium without network, with real mouse events."""

    def __init__(self, program: str, profile: Path):
        reads, commands = os.pipe()
        answers, writes = os.pipe()
        # Numbers from 10 on, because the shell assigns 3 and 4.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes)]
        self.process = subprocess.Popen(
            ["bash", "-c", CONNECT_PIPES, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=ends,
            env={**os.environ, **font_settings(profile.parent), "READS": str(ends[0]), "WRITES": str(ends[1])},
            stderr=subprocess.DEVNULL,
        )
        for end in (reads, writes, *ends):
            os.close(end)
        self.commands, self.answers, self.buffer = commands, answers, b""
        self.numbers, self.session, self.events = itertools.count(1), None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Network", "Runtime"):
            self.send(f"{part}.enable")
        self.send(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; other messages are appended to `events`."""
        number = next(self.numbers)
        command = {"id": number, "method": method, "params": params}
        command |= {"sessionId": self.session} if self.session else {}
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def _receive(self) -> dict[str, Any]:
        until = time.monotonic() + TIMEOUT
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], max(until - time.monotonic(), 0))
            assert ready, f"the browser did not answer within {TIMEOUT} seconds"
            data = os.read(self.answers, 2**16)
            assert data, "the browser has exited"
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path) -> None:
        """Load a file and wait until its script has run."""
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri())
        until = time.monotonic() + TIMEOUT
        while self.value("document.readyState") != "complete" or self.value("location.href") == "about:blank":
            assert time.monotonic() < until, "the page did not load"
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        """Value of a JavaScript expression on the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def point(self, x: float, y: float, click: bool = False) -> None:
        """Move the mouse to a point of the window, and optionally click."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def middle(self, element: str) -> tuple[float, float]:
        """Middle of an element, given as a JavaScript expression, in the window."""
        box = self.value(
            f"(({element}).scrollIntoView({{block: 'nearest'}}), ({element}).getBoundingClientRect().toJSON())"
        )
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def close(self) -> None:
        """Close the browser."""
        self.session = None
        self.send("Browser.close")
        self.process.wait(TIMEOUT)
        os.close(self.commands)
        os.close(self.answers)
