"""Has the kernel put the heap into huge pages, once a service has settled.

A service sleeps most of the time, and finds its memory cold when it wakes. On a virtual machine the first touch of a
page of 4 KiB may cost 16 microseconds, that of a page of 2 MiB hardly more, and a waking touches hundreds of the
former. Linux does this by itself only where transparent huge pages are set to ``always``; asking needs no rights, and
where there are none everything stays as it is. Only what is there is moved, once: memory that is taken later grows by
small pages as before. Source: madvise(2), MADV_COLLAPSE (Linux 6.1).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

HUGE = 2 << 20
"""Bytes of a huge page."""

_MADV_COLLAPSE = 25
_HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)")
_SMAPS = Path("/proc/self/smaps")


def use_huge_pages() -> None:
    """Moves the heap, as far as it is in memory, into huge pages. Takes some ten milliseconds."""
    try:
        madvise = ctypes.CDLL(None).madvise
        areas = list(find_dense_areas(_SMAPS.read_text().splitlines()))
    except (OSError, AttributeError):
        return  # not Linux
    for start, end in areas:
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE)


def find_dense_areas(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """The bounds of what may become huge pages: writable memory without a file, most of which is in use.

    The stack of a thread is not: it would take 2 MiB instead of some KiB.
    """
    start = end = 0
    for line in smaps:
        if header := _HEADER.fullmatch(line):
            low, high, rights, inode, name = header.groups()
            start, end = int(low, 16), int(high, 16)
            if rights != "rw-p" or inode != "0" or name not in ("", "[heap]"):
                start = end = 0
        elif line.startswith("Rss:") and 4 * 1024 * int(line.split()[1]) >= 3 * (end - start):
            first, last = -(-start // HUGE) * HUGE, end // HUGE * HUGE
            if first < last:
                yield first, last
