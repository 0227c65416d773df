"""One supervisor per state directory: a file lock, which the kernel drops with the process that held it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubechain_cli.localcluster.errors import AlreadyRunningError


@contextmanager
def hold_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock inside the `with`. Raises AlreadyRunningError when another has it, unless told to wait."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"A cluster is already running or starting in {path.parent}. See `kubechain status`."
            ) from None
        yield
