"""The guard: whatever happens to the host or to the server's root process, nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from mcp_testbed import PATIENCE, SERVERS, eventually, is_alive

from kubechain_mcp_host import stdio_guard

pytestmark = pytest.mark.integration

PLAIN = [sys.executable, str(SERVERS / "plain_server.py")]


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command under a guard; both are gone after the test."""
    with ExitStack() as stack:

        def run(*command: str, orders: Sequence[str] = (), pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", stdio_guard.__file__, *orders, "--", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=pass_fds,
            )
            return stack.enter_context(guard)

        yield run


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """Where a server with offspring writes its pids; whoever is left of them is killed after the test."""
    path = tmp_path / "pids"
    yield path
    for pid in family_of(path):
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def family_of(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


async def test_passes_output_and_status_on(start: Start) -> None:
    guard = start(sys.executable, "-c", "print('out'); import sys; sys.exit(5)")
    out, err = guard.communicate(timeout=PATIENCE)
    assert out == b"out\n"
    assert err == b"the process exited with status 5\n"
    assert guard.returncode == 5


async def test_names_the_signal_that_ended_the_server(start: Start) -> None:
    guard = start(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    _, err = guard.communicate(timeout=PATIENCE)
    assert err == b"the process was ended by SIGKILL\n"
    assert guard.returncode == 128 + 9


async def test_a_server_that_leaves_by_itself_is_not_hurried(start: Start) -> None:
    slow = "import sys, time; print('hello', flush=True); sys.stdin.read(); time.sleep(0.1); print('bye')"
    guard = start(sys.executable, "-c", slow)
    assert guard.stdout is not None
    assert guard.stdout.readline() == b"hello\n"
    out, err = guard.communicate(b"", timeout=PATIENCE)
    assert (out, err) == (b"bye\n", b"")
    assert guard.returncode == 0


async def test_says_what_can_not_be_started(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "not-a-program"
    script.write_text("hello")
    guard = start(str(script))
    _, err = guard.communicate(timeout=PATIENCE)
    assert err.decode() == f"cannot start {script}: Permission denied\n"


async def test_what_the_server_leaves_behind_is_ended(start: Start, pids: Path) -> None:
    guard = start(*PLAIN, "--offspring", str(pids))
    await eventually(pids.exists)
    family = family_of(pids)
    os.kill(family[0], signal.SIGKILL)
    await eventually(lambda: guard.poll() is not None)
    assert not any(is_alive(pid) for pid in family)


async def test_sigterm_ends_everything(start: Start, pids: Path) -> None:
    guard = start(*PLAIN, "--stubborn", "--offspring", str(pids))
    await eventually(pids.exists)
    guard.terminate()
    await eventually(lambda: guard.poll() is not None)
    assert not any(is_alive(pid) for pid in family_of(pids))


async def test_a_server_dies_with_a_killed_guard(start: Start, pids: Path) -> None:
    guard = start(*PLAIN, "--stubborn", "--offspring", str(pids))
    await eventually(pids.exists)
    guard.kill()
    await eventually(lambda: not is_alive(family_of(pids)[0]))


async def test_a_report_goes_to_its_own_pipe_which_the_server_does_not_have(start: Start) -> None:
    reader, writer = os.pipe()
    glutton = f"import os\ntry:\n    os.write({writer}, b'forged')\nexcept OSError:\n    x = b'x' * (99 << 20)\ninput()"
    orders = [f"--report={writer}", f"--memory={40 << 20}"]
    guard = start(sys.executable, "-c", glutton, orders=orders, pass_fds=[writer])
    assert guard.wait(PATIENCE) == 128 + 9
    os.close(writer)
    with os.fdopen(reader) as report:
        assert report.read().startswith("the server used ")


async def test_the_servers_signals_are_at_their_defaults(start: Start) -> None:
    guard = start("/bin/sh", "-c", "grep SigIgn /proc/self/status")
    out, _ = guard.communicate(timeout=PATIENCE)
    ignored = int(out.split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


async def test_nothing_outlives_a_killed_host(pids: Path) -> None:
    command = [sys.executable, str(SERVERS / "lonely_host.py"), *PLAIN, "--stubborn", "--offspring", str(pids)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as host:  # noqa: ASYNC220 - nothing else runs here
        assert host.stdout is not None
        while host.stdout.readline() != b"Connected\n":
            assert host.poll() is None
        family = family_of(pids)
        assert all(is_alive(pid) for pid in family)
        host.kill()
    await eventually(lambda: not any(is_alive(pid) for pid in family))
