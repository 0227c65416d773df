"""Watches over one stdio server until it, and everything of it, has ended."""

import os
import select
import signal
import sys
import time

from kubechain_mcp_host.guard import environment
from kubechain_mcp_host.guard.enforcer import Enforcer
from kubechain_mcp_host.guard.orders import Orders, parse_orders
from kubechain_mcp_host.guard.starting import StartError, start_server
from kubechain_mcp_host.guard.tree import become_subreaper, find_descendants, kill_tree

STDIN_GRACE = 1.5
"""Seconds; below the two that the host waits before it signals the guard itself, so that the guard always acts first.
"""
TERM_GRACE = 1.0
KILL_GRACE = 1.0

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TICK = 0.02


def run(arguments: "list[str]") -> int:
    """The guard's exit status: the server's own, as a shell would give it."""
    orders = parse_orders(arguments)
    for descriptor in (orders.report, orders.ports):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    given = environment.receive(orders.environment)
    if given is None:
        return 0
    become_subreaper()
    wake = _wake_on_signals()
    try:
        server = start_server(orders, given)
    except StartError as error:
        print(error, file=sys.stderr, flush=True)
        return 127
    # Only the server may hold stdout, or the host would not see it close.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    status, verdict = _watch(server, wake, orders)
    _end_group(server)
    _end_stragglers()
    if status and not verdict:
        print(_describe(status), file=sys.stderr, flush=True)
    return 0 if status is None else status if status >= 0 else 128 - status


def _wake_on_signals() -> int:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *_STOP_SIGNALS):
        signal.signal(number, lambda *_: None)
    return reader


def _watch(server: int, wake: int, orders: Orders) -> "tuple[int | None, str]":
    """Waits for the server's end. Returns its exit code (negative: by that signal; None: its time is up), and why it
    had to be ended.
    """
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(0, 0)  # hang-ups and errors are always reported
    enforcer = Enforcer(orders.memory, orders.cpu) if orders.memory or orders.cpu else None
    next_look = time.monotonic()
    deadline: float | None = None
    verdict = ""
    while True:
        status = _reap(server)
        if status is not None:
            return status, verdict
        now = time.monotonic()
        if deadline is not None:
            if enforcer is not None:
                enforcer.release()  # a stopped process would not hear that it has to leave
                enforcer = None
            if now >= deadline:
                return None, verdict
        if enforcer is not None and now >= next_look:
            next_look = now + enforcer.step()
            verdict = enforcer.verdict
            if verdict:
                _report(orders, verdict)
                kill_tree()
                enforcer = None
        until = deadline if enforcer is None else next_look
        for descriptor, _ in poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000):
            if descriptor == wake:
                received = os.read(wake, 4096)
                if any(number in received for number in _STOP_SIGNALS):
                    deadline = time.monotonic()
            else:
                poll.unregister(0)
                deadline = deadline or time.monotonic() + STDIN_GRACE


def _report(orders: Orders, sentence: str) -> None:
    """Writes the report. That comes before the server ends: whoever sees the end must be able to read why."""
    if orders.report < 0:
        print(sentence, file=sys.stderr, flush=True)
        return
    try:
        os.write(orders.report, sentence.encode())
    except OSError:
        return  # the host has gone


def _reap(server: int) -> "int | None":
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
    """Kills descendants that had left the group, until none is left."""
    deadline = time.monotonic() + KILL_GRACE
    while time.monotonic() < deadline and find_descendants():
        kill_tree()
        time.sleep(_TICK)
        _reap(0)


def _describe(code: int) -> str:
    if code >= 0:
        return f"the process exited with status {code}"
    try:
        return f"the process was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the process was ended by signal {-code}"
