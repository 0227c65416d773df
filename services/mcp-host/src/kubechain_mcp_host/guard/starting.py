"""Starts the server as the guard's child: in a group of its own, first in line for the kernel's OOM killer, isolated
if that is wanted, and never without its guard.

The child is isolated, the guard is not: so the server can neither signal nor trace the one who watches it.
"""

import ctypes
import os
import signal

from kubechain_mcp_host.guard import landlock, syscall_filter
from kubechain_mcp_host.guard.orders import Orders

DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"]

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500
"""More than what pods of any class but the lowest have; with the same score the kernel takes the largest process."""


class StartError(Exception):
    """The server does not run; the message says why."""


def start_server(orders: Orders, environment: "dict[str, str]") -> int:
    """The server's pid. Raises StartError."""
    try:
        rulesets = _build_rulesets(orders)
    except OSError as error:
        raise StartError(f"cannot isolate the server: {error.strerror}") from None
    reader, writer = os.pipe()
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_server(orders, environment, rulesets, guard, writer)
    os.close(writer)
    for descriptor in rulesets:
        os.close(descriptor)
    # Closed by exec, or by the child's end after it has complained.
    with os.fdopen(reader, "rb") as complaints:
        complaint = complaints.read()
    if complaint:
        os.waitpid(pid, 0)
        raise StartError(complaint.decode(errors="replace"))
    return pid


def _build_rulesets(orders: Orders) -> "list[int]":
    if not orders.landlock:
        return []
    files = landlock.build_file_rules(orders.landlock, list(orders.readable), DEVICES, list(orders.writable))
    return [files] if orders.ports < 0 else [files, orders.ports]


def _become_server(
    orders: Orders, environment: "dict[str, str]", rulesets: "list[int]", guard: int, complaints: int
) -> None:
    """Never returns."""
    doing = "start"
    try:
        signal.set_wakeup_fd(-1)
        os.setpgid(0, 0)
        for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores these for itself, and exec would leave it at that
            if number := getattr(signal, name, None):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _die_with(guard)
        _raise_oom_score()
        if rulesets:
            doing = "isolate"
            landlock.restrict_self(rulesets)
            if orders.seccomp:
                syscall_filter.filter_self()
            doing = "start"
        # Not before this line may anything that the environment names be loaded.
        os.execvpe(orders.command[0], orders.command, environment)
    except OSError as error:
        os.write(complaints, f"cannot {doing} {orders.command[0]}: {error.strerror}".encode())
    finally:
        os._exit(127)


def _die_with(guard: int) -> None:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # not Linux
    if os.getppid() != guard:
        os._exit(127)


def _raise_oom_score() -> None:
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
            score = min(1000, int(file.read()) + _OOM_SCORE)
            file.seek(0)
            file.write(str(score))
    except (OSError, ValueError):
        return  # not Linux
