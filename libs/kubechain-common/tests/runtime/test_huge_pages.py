"""The heap goes into huge pages where the kernel has them, and what is hardly used stays as small as it is."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubechain_common.runtime.huge_pages import HUGE, find_dense_blocks

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")

FILLED_AND_EMPTY = """
import asyncio
import mmap
from pathlib import Path
from kubechain_common.runtime.huge_pages import use_huge_pages

def read(what):
    lines = Path("/proc/self/smaps").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(what))

filled, empty = (mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2))
empty[0] = empty[8 << 20] = 1
filled[:] = bytes([7]) * len(filled)
before = read("Rss:")
asyncio.run(use_huge_pages())
assert filled[:] == bytes([7]) * len(filled)
print(read("AnonHugePages:"), read("Rss:") - before)
"""


def release() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split(".")[:2])


def test_what_is_filled_goes_into_huge_pages() -> None:
    if sys.platform != "linux" or release() < (6, 1):
        pytest.skip("only Linux has MADV_COLLAPSE, since 6.1")
    if not SETTING.exists() or "[madvise]" not in SETTING.read_text():
        pytest.skip("this machine's transparent huge pages are not for those who ask")
    shown = subprocess.check_output([sys.executable, "-c", FILLED_AND_EMPTY], text=True, timeout=60)
    huge, grown = (int(word) for word in shown.split())
    assert huge >= HUGE >> 10  # all of it, unless the machine's memory is in pieces
    assert grown < HUGE >> 10


def pagemap(*used: int) -> io.BytesIO:
    """Of a process that has so many small pages in use in each huge one."""
    entry, none = b"\1" + bytes(6) + b"\x80", b"\1" + bytes(7)
    return io.BytesIO(b"".join(entry * n + none * (HUGE // 4096 - n) for n in used))


def area(start: int, end: int, rest: str) -> bytes:
    return f"{start:x}-{end:x} {rest}".encode()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (area(0, 4 * HUGE, "rw-p 00000000 00:00 0 "), [0, 3 * HUGE]),
        (area(4096, 4 * HUGE - 4096, "rw-p 00000000 00:00 0 "), []),
        (area(HUGE + 4096, 4 * HUGE + 4096, "rw-p 00000000 00:00 0      [heap]"), [3 * HUGE]),
        (area(0, 4 * HUGE, "r-xp 00000000 00:00 0 "), []),
        (area(0, 4 * HUGE, "rw-p 00000000 fe:00 7   /opt/a library \N{SNOWMAN}.so"), []),
        (area(0, 4 * HUGE, "rw-p 00000000 00:00 0    [stack]"), []),
    ],
)
def test_what_counts_as_heap(line: bytes, found: list[int]) -> None:
    assert list(find_dense_blocks([line], pagemap(512, 0, 383, 384, 512))) == found
