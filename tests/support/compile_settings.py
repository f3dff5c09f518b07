"""Settings that make JAX compile small programs quickly.

A test compiles a program and runs it once, so the time to trace, lower and compile it matters most.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib.metadata import version

FLAGS = ("backend_optimization_level=0", "cpu_parallel_codegen_split_count=1")
"""No optimisation of machine code, and one thread per program, since there are as many workers as cores."""
FLAGS_OF_0_10 = ("cpu_use_fusion_emitters=false",)
"""A flag that later versions reject."""
PROGRAMS_PER_CONTEXT = 10
"""The number that jax 0.12 uses. A larger one keeps more interned types and locations alive."""


def is_0_10() -> bool:
    """Whether this is the oldest supported jax."""
    return version("jaxlib").startswith("0.10.")


def set_flags() -> None:
    """Set XLA_FLAGS unless the user did, before JAX starts. `XLA_FLAGS= pytest` tests optimised code."""
    flags = FLAGS + FLAGS_OF_0_10 * is_0_10()
    os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{flag}" for flag in flags))


def shorten_locations() -> None:
    """Give each operation one line of source; whole tracebacks take a tenth of the time of small programs."""
    import jax

    jax.config.update("jax_include_full_tracebacks_in_locations", False)


def reuse_mlir_contexts() -> None:
    """Let jax 0.10 lower several programs in one MLIR context, as jax 0.12 does.

    A new context takes 6 ms, half of the time to lower a small program, and megabytes that stay until the program is
    freed. JAX has no public way to share one.
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
        """Whether the context is in use: under `jax.ensure_compile_time_eval` one program is lowered inside another."""
        try:
            return lowering.ir.Context.current == context
        except ValueError:  # there is no current context
            return False

    lowering.make_ir_context = make_ir_context
