"""Has the kernel put the heap into huge pages, once a service has settled.

A service sleeps most of the time, and finds its memory cold when it wakes. On a virtual machine the first touch of a
page of 4 KiB may cost 16 microseconds, that of a page of 2 MiB hardly more, and a waking touches hundreds of the
former. Linux does this by itself only where transparent huge pages are set to ``always``; asking needs no rights, and
where there are none everything stays as it is. Only what is there is moved, once: memory that is taken later grows by
small pages as before. Source: madvise(2), MADV_COLLAPSE (Linux 6.1); proc(5), /proc/pid/pagemap.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from kubechain_common.telemetry.logging import get_logger

HUGE = 2 << 20
"""Bytes of a huge page."""

_PAGE = 4096
_ENTRY = 8
_DENSE = HUGE // _PAGE * 3 // 4
_MADV_COLLAPSE = 25
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SELF = Path("/proc/self")

_log = get_logger(__name__)


async def use_huge_pages() -> None:
    """Moves the heap into huge pages, one after another, as each takes some milliseconds. Raises nothing."""
    try:
        blocks = _find_heap()
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError, ValueError) as error:
        _log.debug("no huge pages", reason=str(error))
        return
    for block in blocks:
        madvise(ctypes.c_void_p(block), ctypes.c_size_t(HUGE), _MADV_COLLAPSE)
        await asyncio.sleep(0)


def _find_heap() -> list[int]:
    if mmap.PAGESIZE != _PAGE or b"[never]" in _SETTING.read_bytes():
        return []
    with (_SELF / "pagemap").open("rb", buffering=0) as pagemap:
        return list(find_dense_blocks((_SELF / "maps").read_bytes().splitlines(), pagemap))


def find_dense_blocks(maps: Iterable[bytes], pagemap: BinaryIO) -> Iterator[int]:
    """Where there are two megabytes of writable memory without a file most of which is in use.

    The rest would become larger by becoming huge: the stack of a thread takes some KiB of its 8 MiB.
    """
    for line in maps:
        bounds, rights, _, _, inode, *name = line.split(maxsplit=5)
        if rights != b"rw-p" or inode != b"0" or name not in ([], [b"[heap]"]):
            continue
        start, end = (int(bound, 16) for bound in bounds.split(b"-"))
        for block in range(-(-start // HUGE) * HUGE, end // HUGE * HUGE, HUGE):
            pagemap.seek(block // _PAGE * _ENTRY)
            entries = pagemap.read(HUGE // _PAGE * _ENTRY)
            if sum(highest >> 7 for highest in entries[_ENTRY - 1 :: _ENTRY]) >= _DENSE:  # bit 63: in memory
                yield block
