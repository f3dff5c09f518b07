"""Padded lengths: sizes rounded up to a few buckets, so that few programs are compiled."""

from __future__ import annotations

from jax_attention.core.sizes import is_static

SMALLEST_BUCKET = 16
LARGEST_DOUBLING = 128


def bucket(length: int) -> int:
    """The bucket of a length: 16, 32, 64 or 128, beyond that the next multiple of 128.

    From length 9 on it is less than twice the length, and lengths up to 1024 need 11 compiled programs, not 1024. A
    symbolic length stays as it is: one program takes them all.
    """
    if not is_static(length):
        return length
    if length > LARGEST_DOUBLING:
        return -(-length // LARGEST_DOUBLING) * LARGEST_DOUBLING
    return max(SMALLEST_BUCKET, 1 << (length - 1).bit_length())
