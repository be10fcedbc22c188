"""The C library's allocator, told that training frees what it soon wants again."""

import ctypes

# glibc, malloc.h: which of mallopt's values is which.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3

LARGEST = 32 * 2**20
"""Bytes: larger blocks glibc always asks the system for, one by one."""


def keep_freed_memory() -> None:
    """Have this process, and those it forks, keep what they free: a patch's rain and a network's activations on a CPU
    are hundreds of blocks of some MB, whose every page the system would clear and map again in each iteration.

    Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGEST)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 2 * LARGEST)
