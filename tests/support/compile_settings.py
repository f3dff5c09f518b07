"""Settings under which JAX compiles the thousands of small programs of the tests quickly.

A test compiles a program and runs it once, so what counts is the time to trace, lower and compile it.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib.metadata import version

FLAGS = ("backend_optimization_level=0", "cpu_parallel_codegen_split_count=1")
"""Leave the machine code unoptimised, and compile each program in one thread: there are as many workers as cores."""
FLAGS_OF_0_10 = ("cpu_use_fusion_emitters=false",)
"""Later versions refuse this one."""
PROGRAMS_PER_CONTEXT = 10
"""As in jax 0.12. More would keep more interned types and locations alive."""


def is_0_10() -> bool:
    """Whether this is the oldest supported jax."""
    return version("jaxlib").startswith("0.10.")


def set_flags() -> None:
    """Set XLA_FLAGS, unless the user did; must run before JAX starts. `XLA_FLAGS= pytest` tests optimised code."""
    flags = FLAGS + FLAGS_OF_0_10 * is_0_10()
    os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{flag}" for flag in flags))


def shorten_locations() -> None:
    """Give each operation one line of source instead of a whole traceback: a tenth of the time of small programs."""
    import jax

    jax.config.update("jax_include_full_tracebacks_in_locations", False)


def reuse_mlir_contexts() -> None:
    """Let jax 0.10 lower several programs in one MLIR context, as jax 0.12 does by itself.

    A new context costs 6 ms, half of the time in which a small program is lowered, and megabytes that stay until the
    program is freed. There is no public way to share one.
    """
    if not is_0_10():
        return
    from jax.interpreters import mlir

    lowering = sys.modules[mlir.make_ir_context.__module__]
    create, local = lowering.make_ir_context, threading.local()

    def make_ir_context():
        context, count = getattr(local, "used", (None, PROGRAMS_PER_CONTEXT))
        if count == PROGRAMS_PER_CONTEXT or is_entered(context):
            context, count = create(), 0
        local.used = context, count + 1
        return context

    def is_entered(context) -> bool:
        """Whether a program is being lowered in it, which itself runs another: `jax.ensure_compile_time_eval`."""
        try:
            return lowering.ir.Context.current == context
        except ValueError:  # there is no current context
            return False

    lowering.make_ir_context = make_ir_context
