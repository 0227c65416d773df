"""The supervisor with small processes of the test in the place of a cluster's."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kubechain_cli.console import print_event
from kubechain_cli.localcluster import supervisor
from kubechain_cli.localcluster.backoff import RestartBackoff
from kubechain_cli.localcluster.errors import LocalClusterError
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.plan import Plan, write_plan
from kubechain_cli.localcluster.processes import ProcessSpec, StopStage
from kubechain_cli.localcluster.state import ClusterState, read_state, write_state
from kubechain_cli.localcluster.supervisor import Report, Supervisor
from kubechain_cli.taskrun.terminal import new_literal_console
from kubechain_common.testing.eventually import eventually

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
# Serves no admission policies, so there is nothing to wait for.
KUBECTL = """#!/bin/sh
echo '{"resources": []}'
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "state")
    layout.create()
    return layout


@pytest.fixture
def plan(tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Beside a cluster that takes everything: two processes that do nothing."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    specs = [
        ProcessSpec(
            name=name,
            argv=SLEEP,
            log_file=layout.log_file(name),
            stage=StopStage.SERVICE,
            backoff=RestartBackoff(first=0.01),
        )
        for name in ("one", "other")
    ]
    monkeypatch.setattr(supervisor, "build_processes", lambda *_: specs)
    return Plan({"kubectl": str(kubectl)}, {"nats": 1}, (), context="mine")


def ignore(_: dict[str, Any]) -> None:
    return


class Cluster:
    """What the supervisor reported of it, and what it wrote down."""

    def __init__(self, layout: Layout, report: Report) -> None:
        self.layout = layout
        self._report = report
        self.events: list[dict[str, Any]] = []

    def note(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self._report(event)

    async def until(self, condition: Callable[[], bool]) -> None:
        await asyncio.to_thread(eventually, condition, 30)

    def tells(self, key: str) -> bool:
        return any(key in event for event in self.events)

    def pids(self) -> dict[str, int | None]:
        state = read_state(self.layout)
        return {process.name: process.pid for process in state.processes} if state else {}


@asynccontextmanager
async def running(layout: Layout, plan: Plan, report: Report = ignore) -> AsyncIterator[Cluster]:
    cluster = Cluster(layout, report)
    supervised = Supervisor(layout, plan, cluster.note)
    async with asyncio.TaskGroup() as group:
        group.create_task(supervised.run())
        await cluster.until(lambda: cluster.tells("up"))
        try:
            yield cluster
        finally:
            supervised.request_stop()


async def test_a_full_disk_ends_no_process_and_the_state_is_written_once_there_is_room(
    layout: Layout, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_is_full = True

    def write(path: Path, state: ClusterState) -> None:
        if disk_is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_state(path, state)

    async with running(layout, plan) as cluster:
        before = cluster.pids()
        monkeypatch.setattr(supervisor, "write_state", write)
        assert before["one"] is not None
        os.kill(before["one"], signal.SIGKILL)
        await cluster.until(lambda: cluster.events[-1].get("ready") == "one")
        assert cluster.pids() == before
        disk_is_full = False
        await cluster.until(lambda: cluster.pids()["one"] not in (None, before["one"]))
        assert cluster.pids()["other"] == before["other"]
        assert sum("unwritten" in event for event in cluster.events) == 1
    assert not layout.state.exists()


async def test_a_terminal_that_is_gone_ends_no_process(layout: Layout, plan: Plan) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with io.TextIOWrapper(os.fdopen(write_end, "wb", buffering=0), write_through=True) as gone:
        console = new_literal_console(gone)
        async with running(layout, plan, lambda event: print_event(console, event)) as cluster:
            assert all(cluster.pids().values())


async def test_a_step_that_fails_in_a_way_of_its_own_stops_all_in_order(layout: Layout, plan: Plan) -> None:
    plan.binary("kubectl").write_text("#!/bin/sh\necho no json\n")
    supervised = Supervisor(layout, plan, ignore)
    with pytest.raises(LocalClusterError, match="Something unexpected: JSONDecodeError"):
        await asyncio.wait_for(supervised.run(), 20)
    assert not layout.state.exists()


SUPERVISE = """
import asyncio, sys
from pathlib import Path
from kubechain_cli.localcluster import supervisor
from kubechain_cli.localcluster.layout import Layout
supervisor.build_processes = lambda *_: []
asyncio.run(supervisor.supervise(Layout(Path(sys.argv[1])), lambda event: print(*event, flush=True)))
print("stopped")
"""


@pytest.mark.parametrize("nohup", [False, True])
def test_a_closed_terminal_stops_all_in_order_unless_that_is_ignored(layout: Layout, plan: Plan, nohup: bool) -> None:
    write_plan(layout, plan)
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(layout.root)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert any(line == "up\n" for line in process.stdout)
        assert layout.state.exists()
        process.send_signal(signal.SIGHUP)
        if nohup:
            process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[0] == "stopped\n"
    assert not layout.state.exists()


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_the_log_does_not_take_is_still_told_to_up(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    monkeypatch.setattr(sys, "stdout", Full())
    supervisor._reporter(write_end)({"up": 1.0})
    os.close(write_end)
    with open(read_end) as told:
        assert json.loads(told.read()) == {"up": 1.0}
