"""Several commands in one state directory at a time: none touches what belongs to another's cluster."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kubechain_cli.localcluster import detached, prepare, turn
from kubechain_cli.localcluster.cleanup import purge_state
from kubechain_cli.localcluster.detached import start_supervisor, stop_cluster
from kubechain_cli.localcluster.errors import AlreadyRunningError
from kubechain_cli.localcluster.identity import read_start
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.lock import hold_lock
from kubechain_cli.localcluster.state import ClusterState, ProcessState, write_state
from kubechain_cli.localcluster.turn import take_turn
from kubechain_cli.main import app
from kubechain_common.testing.eventually import eventually

Come = Callable[[], None]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "state")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the other cluster, which runs all the time."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        yield process
        assert process.poll() is None, "the other cluster's process was ended"


@pytest.fixture
def come(layout: Layout, child: subprocess.Popen[bytes]) -> Iterator[Come]:
    """Has another supervisor, played by this process, take the directory."""
    held = ExitStack()

    def come() -> None:
        layout.create()
        held.enter_context(hold_lock(layout.lock))
        layout.kubeconfig.write_text("the other's")
        write_state(layout.state, make_state(layout, child.pid))

    with held:
        yield come


def make_state(layout: Layout, pid: int) -> ClusterState:
    return ClusterState(
        kubeconfig=str(layout.kubeconfig),
        nats_url="nats://127.0.0.1:1",
        state_dir=str(layout.root),
        supervisor_pid=os.getpid(),
        supervisor_started_at=read_start(os.getpid()),
        complete=True,
        processes=(ProcessState("nats", pid, 1, True, 0, "/l", read_start(pid)),),
    )


def is_free(path: Path) -> bool:
    try:
        with hold_lock(path):
            return True
    except AlreadyRunningError:
        return False


@pytest.mark.parametrize("options", [["--detach"], []])
def test_an_up_that_is_second_tells_of_the_first_and_leaves_it_alone(
    layout: Layout, come: Come, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    def find_nats_server() -> Path:  # what `up` does after it has seen that nothing runs
        come()
        return Path("/nowhere/nats-server")

    monkeypatch.setattr("kubechain_cli.commands.up.find_nats_server", find_nats_server)
    context = ["--services", "none", "--context", "any", "--state-dir", str(layout.root)]
    result = CliRunner().invoke(app, ["up", *options, *context])
    assert (result.exit_code, f"Already running (supervisor {os.getpid()})" in result.stderr) == (0, True)
    assert layout.kubeconfig.read_text() == "the other's"
    assert not layout.plan.exists()


def test_an_up_that_is_interrupted_says_that_its_cluster_goes_on(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(*_: object) -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("kubechain_cli.commands.up.find_nats_server", lambda: Path("/nowhere/nats-server"))
    monkeypatch.setattr(prepare, "prepare", lambda *_, **__: None)
    monkeypatch.setattr("kubechain_cli.commands.up.start_supervisor", lambda *_: 0)
    monkeypatch.setattr("kubechain_cli.commands.up.follow", follow)
    options = ["--detach", "--services", "none", "--context", "any", "--state-dir", str(layout.root)]
    result = CliRunner().invoke(app, ["up", *options])
    assert (result.exit_code, f"`kubechain down --state-dir {layout.root}` stops it" in result.stderr) == (130, True)


def test_a_down_does_not_end_the_cluster_that_came_after_the_one_it_stops(
    layout: Layout, come: Come, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_supervisor(state: ClusterState, timeout: float) -> bool:
        come()
        return False

    monkeypatch.setattr(detached, "end_supervisor", end_supervisor)
    layout.create()
    write_state(layout.state, make_state(layout, child.pid))
    with pytest.raises(AlreadyRunningError):
        stop_cluster(layout)
    assert layout.state.exists()


def test_one_that_only_prepares_is_waited_for(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.create()
    with ExitStack() as other:
        other.enter_context(hold_lock(layout.lock))
        monkeypatch.setattr(turn, "read_running_state", lambda _: other.close())  # it has failed when we look again
        with take_turn(layout, timeout=20) as taken:
            assert isinstance(taken, int)
            assert not is_free(layout.lock)
    assert is_free(layout.lock)


def test_the_wait_for_one_that_prepares_ends(layout: Layout) -> None:
    layout.create()
    with hold_lock(layout.lock), pytest.raises(AlreadyRunningError, match="starting"), take_turn(layout, timeout=0):
        pass


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # it is there to outlive `up`
def test_the_supervisor_gets_the_lock_without_a_gap(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    program = layout.root.parent / "python"
    program.write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with take_turn(layout) as taken:
        assert isinstance(taken, int)
        notify = start_supervisor(layout, taken)
    try:
        assert not is_free(layout.lock)
        pid = int(eventually(layout.supervisor_log.read_text, 20))
    finally:
        os.close(notify)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: is_free(layout.lock), 20)
    os.waitpid(pid, 0)


def test_a_lock_whose_file_was_purged_meanwhile_is_taken_anew(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.create()
    flock, purges = fcntl.flock, [lambda: purge_state(layout)]

    def purge_first(file: int, operation: int) -> None:
        if purges:
            purges.pop()()
            layout.create()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", purge_first)
    with hold_lock(layout.lock):
        assert not is_free(layout.lock)


def test_purge_spares_a_cluster_that_runs(layout: Layout, come: Come) -> None:
    come()
    with pytest.raises(AlreadyRunningError):
        purge_state(layout)
    assert layout.kubeconfig.exists()
