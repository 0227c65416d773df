"""state.json, and telling a living supervisor from a dead one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kubechain_cli.localcluster.cleanup import delete_data, purge_state
from kubechain_cli.localcluster.errors import AlreadyRunningError
from kubechain_cli.localcluster.files import tail, write_atomic
from kubechain_cli.localcluster.identity import StartMark, read_start
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.leftovers import end_leftovers
from kubechain_cli.localcluster.lock import hold_lock
from kubechain_cli.localcluster.state import (
    ClusterState,
    ProcessState,
    read_running_state,
    read_state,
    write_state,
)


def make_state(layout: Layout, *processes: ProcessState, complete: bool = True) -> ClusterState:
    return ClusterState(
        kubeconfig=str(layout.kubeconfig),
        nats_url="nats://127.0.0.1:1",
        state_dir=str(layout.root),
        supervisor_pid=os.getpid(),
        supervisor_started_at=read_start(os.getpid()),
        complete=complete,
        processes=processes,
    )


NATS = ProcessState(name="nats", pid=1, port=2, ready=True, restarts=3, log_file="/l", started_at=4.0)


def test_the_contract_for_scripts(tmp_path: Path) -> None:
    state = make_state(Layout(tmp_path), NATS)
    assert state.to_status() == {
        "kubeconfig": str(tmp_path / "kubeconfig"),
        "natsUrl": "nats://127.0.0.1:1",
        "pageUrl": None,
        "stateDir": str(tmp_path),
        "supervisorPid": os.getpid(),
        "processes": [{"name": "nats", "pid": 1, "port": 2, "ready": True, "restarts": 3, "logFile": "/l"}],
    }


def test_a_state_survives_its_file(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    state = make_state(layout, NATS)
    write_state(layout.state, state)
    assert read_state(layout) == state
    assert read_running_state(layout) == state


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"processes": [{}]}'])
def test_an_unreadable_state_is_none(tmp_path: Path, content: str) -> None:
    layout = Layout(tmp_path)
    assert read_state(layout) is None
    layout.state.write_text(content)
    assert read_state(layout) is None


def test_ready_means_complete_and_every_process(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert make_state(layout, NATS).ready
    assert not make_state(layout, NATS, complete=False).ready
    assert not make_state(layout, NATS, ProcessState("x", None, None, False, 0, "/x")).ready


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel keeps the time of creation as it was")
def test_a_step_of_the_clock_does_not_hide_a_running_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    write_state(layout.state, state := make_state(layout, NATS))
    created = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: created + 3600)
    assert read_running_state(layout) == state


def test_a_running_cluster_of_the_version_that_noted_times_is_found(tmp_path: Path) -> None:
    layout, created = Layout(tmp_path), psutil.Process().create_time()
    write_state(layout.state, state := replace(make_state(layout), supervisor_started_at=created))
    assert read_running_state(layout) == state
    write_state(layout.state, replace(state, supervisor_started_at=created - 100))
    assert read_running_state(layout) is None


@pytest.mark.parametrize("read", [read_start, lambda pid: psutil.Process(pid).create_time()])
def test_leftovers_end_only_when_pid_and_start_fit(tmp_path: Path, read: Callable[[int], StartMark | None]) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command, start_new_session=True) as process:
        mine = read(os.getpid())  # a number of a moment ago would be within what is tolerated
        other = mine if isinstance(mine, str) else time.time() - 1000
        stranger = ProcessState("stranger", process.pid, None, True, 0, "/l", started_at=other)
        assert end_leftovers(make_state(Layout(tmp_path), stranger)) == []
        assert process.poll() is None
        ours = ProcessState("ours", process.pid, None, True, 0, "/l", started_at=read(process.pid))
        assert end_leftovers(make_state(Layout(tmp_path), ours, NATS)) == ["ours"]
        assert process.wait(5) == -9


def test_one_supervisor_per_directory(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with hold_lock(lock), pytest.raises(AlreadyRunningError, match="kubechain status"), hold_lock(lock):
        pass
    with hold_lock(lock):
        pass


def test_down_deletes_data_and_keeps_the_address(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    layout.kubeconfig.write_text("x")
    (layout.data / "etcd").mkdir()
    delete_data(layout)
    assert layout.kubeconfig.exists()
    assert not layout.data.exists()
    assert not layout.logs.exists()


def test_purge_spares_what_is_not_ours(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    layout.kubeconfig.write_text("x")
    (layout.root / "notes.txt").write_text("mine")
    purge_state(layout)
    assert [path.name for path in layout.root.iterdir()] == ["notes.txt"]
    (layout.root / "notes.txt").unlink()
    purge_state(layout)
    assert not layout.root.exists()
    purge_state(layout)


def test_files_are_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "one")
    write_atomic(path, "two")
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_end_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path) == ""
    path.write_text("\n".join(f"line {number}" for number in range(5000)))
    assert tail(path, 2) == "line 4998\nline 4999"
