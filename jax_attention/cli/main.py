"""The entry point of `jax-attention`: errors that a user can mend are one line, not a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, or what the command says, 1 for an error that was explained, 130 after
    Ctrl-C.
    """
    try:
        from jax_attention.cli import app
        from jax_attention.training import TrainingDiverged
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("jax_attention"):
            raise
        sys.stderr.write(
            f"jax-attention: expected the package {error.name}, which is not installed. Install the command line's "
            "packages: pip install 'jax_attention[train,viz]'\n"
        )
        return 1
    try:
        return app.parse(arguments).run() or 0
    except (ValueError, OSError, ImportError, TrainingDiverged) as error:
        if os.environ.get("JAX_ATTENTION_TRACEBACK"):
            raise
        sys.stderr.write(f"jax-attention: {error}\n")
        return 1
    except TypeError as error:
        if ": expected " not in str(error):  # not one of our messages: a fault of ours, to be seen whole
            raise
        sys.stderr.write(f"jax-attention: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("jax-attention: interrupted\n")
        return 130
