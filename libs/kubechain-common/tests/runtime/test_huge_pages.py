"""The heap goes into huge pages where the kernel has them, and what is hardly used stays as small as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kubechain_common.runtime.huge_pages import HUGE, find_dense_areas

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")

FILLED_AND_EMPTY = """
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
use_huge_pages()
assert filled[:] == bytes([7]) * len(filled)
print(read("AnonHugePages:"), read("Rss:") - before)
"""


def test_what_is_filled_goes_into_huge_pages() -> None:
    if not SETTING.exists() or "[never]" in SETTING.read_text():
        pytest.skip("this kernel has no transparent huge pages")
    done = subprocess.run(
        [sys.executable, "-c", FILLED_AND_EMPTY], capture_output=True, text=True, timeout=60, check=True
    )
    huge, grown = (int(word) for word in done.stdout.split())
    assert huge >= 12 << 10
    assert grown < 4 << 10


def area(start: int, end: int, resident: int, rights: str = "rw-p", inode: int = 0, name: str = "") -> list[str]:
    return [
        f"{start:x}-{end:x} {rights} 00000000 00:00 {inode} {name}",
        f"Size: {(end - start) >> 10} kB",
        f"Rss: {resident >> 10} kB",
        "Pss: 0 kB",
    ]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (area(HUGE, 3 * HUGE, 2 * HUGE), [(HUGE, 3 * HUGE)]),
        (area(HUGE - 4096, 3 * HUGE + 4096, 2 * HUGE, name="[heap]"), [(HUGE, 3 * HUGE)]),
        (area(HUGE + 4096, 3 * HUGE - 4096, HUGE), []),
        (area(HUGE, 5 * HUGE, 8192), []),
        (area(HUGE, 3 * HUGE, 2 * HUGE, rights="r-xp"), []),
        (area(HUGE, 3 * HUGE, 2 * HUGE, inode=7, name="/usr/lib/libc.so"), []),
        (area(HUGE, 3 * HUGE, 2 * HUGE, name="[stack]"), []),
    ],
)
def test_what_counts_as_heap(lines: list[str], found: list[tuple[int, int]]) -> None:
    assert list(find_dense_areas(lines)) == found
