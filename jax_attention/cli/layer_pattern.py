"""The regular expression of `--lora-targets`, tried in a process of its own: the settings of a run may be a stranger's.

Python's `re` has no limit of time. `(a+)+$` needs 2^n steps for n letters, and nothing but the end of the process stops
it. Most libraries without backtracking read another dialect than the adapters of PEFT.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys

from jax_attention.core.checks import fail_unless
from jax_attention.core.text import quote

SECONDS = 5.0
"""Time limit; an ordinary expression takes a millisecond for the layers of any model, the process 20 to 50."""
MAX_LETTERS = 10_000
"""Longest expression; compiling a longer one takes seconds."""
SCRIPT = "import json, re, sys; pattern, *names = json.load(sys.stdin); [re.search(pattern, name) for name in names]"


@functools.lru_cache(maxsize=64)
def check_pattern(pattern: str, names: tuple[str, ...]) -> None:
    """Refuse an expression that does not end in time on the names of the layers; errors in it are `nn.lora`'s."""
    fail_unless(
        len(pattern) <= MAX_LETTERS,
        f"lora_targets: expected a regular expression of at most {MAX_LETTERS:,} letters, got one of {len(pattern):,}.",
    )
    command = [sys.executable, "-I", "-S", "-c", SCRIPT]
    try:
        # In a session of its own: Ctrl-C is for the training alone.
        subprocess.run(
            command,
            input=json.dumps([pattern, *names]).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"lora_targets: expected a regular expression that is searched in {SECONDS:.0f} seconds, got "
            f"{quote(pattern)}, which is not. Leave out repetitions of repetitions, such as '(a+)+'."
        ) from None
