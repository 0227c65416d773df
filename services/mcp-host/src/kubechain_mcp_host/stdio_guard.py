"""Starts one stdio MCP server and sees to it that nothing of it outlives mcp-host. Runs as ``python -I -S
stdio_guard.py CMD ARGS``.

A server started by ``uvx`` or ``npx`` is a tree of processes, and neither closing stdin nor a signal to its root
reliably ends all of it; a host that is killed can do neither. So this small process sits between the two. The server
inherits its stdin, stdout and stderr and talks to the host directly; the guard only watches:

- stdin hung up (the host closed it, or died in whatever way): the server has ``STDIN_GRACE`` seconds to leave, then
it is told to;
- SIGTERM, SIGINT or SIGHUP: it is told to leave at once;
- it has left: what it leaves behind is ended too.

"All of it" means its process group and, on Linux, every other descendant: as a subreaper the guard becomes their
parent. It imports nothing of ours and little of Python's, because one runs per server.
"""

import ctypes
import os
import select
import signal
import sys
import time

STDIN_GRACE = 1.5
"""Seconds; below the two that the MCP SDK waits before it signals the guard itself, so that the guard always acts
first.
"""
TERM_GRACE = 1.0
KILL_GRACE = 1.0

_PR_SET_CHILD_SUBREAPER = 36
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TICK = 0.02


def main(argv: list[str]) -> int:
    _become_subreaper()
    wake = _wake_on_signals()
    try:
        # A group of its own lets us tell when the last member has gone; the guard is not one of them.
        server = os.posix_spawnp(argv[0], argv, os.environ, setpgroup=0, setsigmask=(), setsigdef=_signals_to_restore())
    except OSError as error:
        print(f"cannot start {argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return 127
    # Only the server may hold stdout, or the host would not see it close.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    status = _watch(server, wake)
    _end_group(server)
    _end_stragglers()
    if status:
        print(_describe(status), file=sys.stderr, flush=True)
    return 0 if status is None else status if status >= 0 else 128 - status


def _become_subreaper() -> None:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        return  # not Linux: the process group is all that can be ended


def _wake_on_signals() -> int:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *_STOP_SIGNALS):
        signal.signal(number, lambda *_: None)
    return reader


def _signals_to_restore() -> list[int]:
    # Python ignores these for itself, and a child would inherit that.
    return [number for name in ("SIGPIPE", "SIGXFSZ") if (number := getattr(signal, name, None)) is not None]


def _watch(server: int, wake: int) -> int | None:
    """Waits for the server's end. Returns its exit code (negative: by that signal); None: its time is up."""
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(0, 0)  # hang-ups and errors are always reported
    deadline: float | None = None
    while True:
        status = _reap(server)
        if status is not None:
            return status
        if deadline is not None and time.monotonic() >= deadline:
            return None
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        for descriptor, _ in poll.poll(timeout):
            if descriptor == wake:
                received = os.read(wake, 4096)
                if any(number in received for number in _STOP_SIGNALS):
                    deadline = time.monotonic()
            else:
                poll.unregister(0)
                deadline = deadline or time.monotonic() + STDIN_GRACE


def _reap(server: int) -> int | None:
    """Collects every child that has ended; returns the server's exit code if it is one of them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == server:
            code = os.waitstatus_to_exitcode(status)


def _end_group(group: int) -> None:
    for number, grace in ((signal.SIGTERM, TERM_GRACE), (signal.SIGKILL, KILL_GRACE)):
        deadline = time.monotonic() + grace
        if not _signal_group(group, number):
            return
        while time.monotonic() < deadline:
            _reap(group)
            if not _signal_group(group, 0):
                return
            time.sleep(_TICK)


def _signal_group(group: int, number: int) -> bool:
    """Whether the group still has members."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _end_stragglers() -> None:
    """Kills descendants that had left the group; each one's own children become ours, so it goes round until none is
    left.
    """
    deadline = time.monotonic() + KILL_GRACE
    while time.monotonic() < deadline:
        children = _children()
        if not children:
            return
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(_TICK)
        _reap(0)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _describe(code: int) -> str:
    if code >= 0:
        return f"the process exited with status {code}"
    try:
        return f"the process was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the process was ended by signal {-code}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
