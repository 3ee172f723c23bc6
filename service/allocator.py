"""How much freed memory the C library keeps for itself."""

from __future__ import annotations

import ctypes
import os

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# Arrays from this size on are mapped, and given back when they are freed. Those of tiles up to 500 x 500 px
# are smaller, and cost no page faults.
MMAP_THRESHOLD_BYTES = 4 << 20
# Free bytes at the end of a thread's heap beyond which it shrinks: some tiles' worth, so that it stays as it
# is from one tile to the next.
TRIM_THRESHOLD_BYTES = 8 << 20

# Work that held less than this in small blocks leaves nothing behind that is worth looking for.
WORTH_TRIMMING_BYTES = TRIM_THRESHOLD_BYTES

_OPERATORS_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def give_back_freed_memory() -> bool:
    """Keeps glibc's allocator from raising its thresholds; for the whole process, before its threads start.

    With every large block that is freed, glibc raises the size from which blocks are mapped, up to 32 MB, and
    lets each thread's heap keep twice as much once it is free. So resident memory rises with the largest
    files that ever came, thread by thread (docs/hardening.md has figures).

    Returns:
        Whether they were set: not where the environment sets them, or the C library is another.
    """
    if any(name in os.environ for name in _OPERATORS_CHOICE):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl, macOS
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) and mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    )


def give_back_free_pages() -> bool:
    """Gives back what is free anywhere in the heaps of all threads, not only at their ends; after large work.

    A heap shrinks from its end, and one block of 48 bytes there keeps all that is free below it. glibc itself
    leaves such blocks: each thread keeps some that were freed for its next allocations. Takes 0.2 ms where
    nothing is to be given back, 3 ms for 45 MB.

    Returns:
        Whether there was something.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
