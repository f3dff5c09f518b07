"""One setting of the C library that training on a CPU profits from."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Numbers of mallopt(3)'s parameters in glibc's malloc.h."""


def keep_freed_memory(size: int = 2**30) -> bool:
    """Let the C library keep freed memory instead of giving it back to the system after every step.

        blocks up to `size` bytes:  mmap, page faults, munmap  ->  taken from and returned to the heap

    XLA on CPU takes all temporary memory of a program in one block and frees it after each run. glibc gives blocks
    over 32 MiB back to the system at once, and a thread's own arena cannot hold more than 64 MiB at all, so each step
    touches every page anew: a third of the time of a small model's step. Now blocks stay in one arena that all threads
    share; the price is that the process keeps its largest footprint. Call it before the first computation, as arenas
    that exist stay. Accelerators have allocators of their own and do not care.

    Args:
        size: bytes; larger blocks are still returned.

    Returns:
        Whether the setting was made: False where the C library is not glibc.

    Raises:
        Nothing.

    Example:
        >>> from jax_attention import training
        >>> training.keep_freed_memory() in (True, False)
        True

    Reference:
        mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt, limit = ctypes.CDLL(None).mallopt, 2**31 - 1
    settings = {M_ARENA_MAX: 1, M_MMAP_THRESHOLD: min(size, limit), M_TRIM_THRESHOLD: limit}
    return all(mallopt(name, value) for name, value in settings.items())
