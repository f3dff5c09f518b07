"""The other side of `command_server`: commands in forked children, as methods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SERVER = Path(__file__).with_name("command_server.py")
CACHE_EVERYTHING = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


class Server:
    """Commands in forked children; see `command_server`."""

    def __init__(self, folder, cache):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)} | CACHE_EVERYTHING,
        )

    def run(self, *arguments, kill_at=None, **limits):
        arguments = list(map(str, arguments))
        request = {"arguments": arguments, "below": str(self.folder), "kill_at": kill_at, "limits": limits}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)
