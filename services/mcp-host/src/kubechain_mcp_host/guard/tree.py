"""The processes below this one. They can not leave it, because it is their subreaper."""

import ctypes
import os
import signal

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        return  # not Linux: the process group is all that can be ended


def find_descendants() -> "list[int]":
    """The pids below this process, parents before their children, zombies too; empty where there is no /proc."""
    found: list[int] = []
    queue = _children(os.getpid())
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += _children(pid)
    return found


def signal_tree(number: int) -> None:
    """Sends it to every descendant. One that was started meanwhile is met on the next round; SIGSTOP and SIGKILL keep
    the others from starting more.
    """
    told: set[int] = set()
    while True:
        new = [pid for pid in find_descendants() if pid not in told]
        if not new:
            return
        for pid in new:
            told.add(pid)
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue


def kill_tree() -> None:
    signal_tree(signal.SIGKILL)


def _children(pid: int) -> "list[int]":
    """The children of a process, by thread: a child belongs to the thread that started it."""
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = read(f"/proc/{pid}/task/{thread}/children")
            children += [int(child) for child in text.split()]
    except OSError:
        pass  # it has just ended
    return children


def read(path: str) -> bytes:
    """A small file of /proc. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)
