"""Locks between processes: files that the kernel unlocks with the process that held them (flock)."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.images.base import cache_folder


def lock_file(name: str) -> Path:
    """Of this user, on this machine."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.lock"


@contextmanager
def hold(name: str, *, shared: bool = False) -> Iterator[None]:
    """Waits for it; many may share it."""
    with lock_file(name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def is_held(name: str) -> bool:
    """Whether anybody holds it, alone or shared."""
    with lock_file(name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
