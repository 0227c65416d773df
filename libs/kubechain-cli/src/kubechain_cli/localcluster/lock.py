"""One ``up``, supervisor or cleaning at a time in a state directory: a file lock, which ends with those who hold it.

The lock belongs to the open file, not to the process: ``up`` hands it to the supervisor with the descriptor, so that
there is no moment between the two in which another could have it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubechain_cli.localcluster.errors import AlreadyRunningError


@contextmanager
def hold_lock(path: Path, *, wait: bool = False) -> Iterator[int]:
    """Hold the lock inside the ``with``, by this descriptor; a child that was given it goes on holding it.

    Raises AlreadyRunningError when another has it, unless told to wait.
    """
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError(
                    f"A cluster is already running or starting in {path.parent}. See `kubechain status`."
                ) from None
            # Whoever had it may have deleted the file with everything else; the next one locks another.
            if _is_at(path, file.fileno()):
                yield file.fileno()
                return


@contextmanager
def keep_lock(descriptor: int) -> Iterator[None]:
    """Go on holding, inside the ``with``, the lock that whoever started us has handed over."""
    with os.fdopen(descriptor, "w"):
        yield


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
