"""Keeping freed memory for the next step."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed instead of giving it back to the system; without glibc, do nothing.

    A step on a CPU frees and allocates the same large tensors as the step before. By default every one of them is
    mapped anew and zeroed by the kernel page by page, which takes a tenth to a third of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
