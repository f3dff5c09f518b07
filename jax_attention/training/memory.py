"""A setting of the C library's allocator that makes training on a CPU faster."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Numbers of the parameters of mallopt(3), from malloc.h of glibc."""


def keep_freed_memory(size: int = 2**30) -> bool:
    """Let the C library keep freed memory instead of returning it to the system after every step.

        blocks up to `size` bytes:  mmap, page faults, munmap  ->  taken from and returned to the heap

    XLA on CPU allocates all temporary memory of a program as one block and frees it after each run. glibc returns
    blocks over 32 MiB to the system at once, and the arena of a thread cannot hold more than 64 MiB at all, so each
    step causes page faults for all of its memory: a third of the time of a small model's step. With this setting blocks
    stay in one arena that all threads share. The price is that the process keeps its largest footprint. Call it before
    the first computation, as arenas that exist already stay. Accelerators have other allocators and are not affected.

    Args:
        size: the largest block that is kept, in bytes; larger ones are still returned.

    Returns:
        Whether the setting was made: False where the C library is not glibc.

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
    # One arena, the main one: the arenas of other threads are limited to 64 MiB.
    settings = {M_ARENA_MAX: 1, M_MMAP_THRESHOLD: min(size, limit), M_TRIM_THRESHOLD: limit}
    return all(mallopt(name, value) for name, value in settings.items())
