"""Lengths rounded up, so that few of them are compiled."""

from __future__ import annotations

SMALLEST_BUCKET = 16
LARGEST_DOUBLING = 128


def bucket(length: int) -> int:
    """The next allowed size: 16, 32, 64, 128, and from there on multiples of 128.

    So a prompt costs less than twice its own rows, and lengths up to 1024 compile 11 programs, not 1024.
    """
    if length > LARGEST_DOUBLING:
        return -(-length // LARGEST_DOUBLING) * LARGEST_DOUBLING
    return max(SMALLEST_BUCKET, 1 << (length - 1).bit_length())
