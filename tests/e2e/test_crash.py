"""Every process dies in the middle of Tasks: all of them finish, no tool ran twice, no answer was paid for twice.

The witnesses are not the product's: the MCP server's own log of its executions, and the requests that the LLM got.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.cluster import SERVICES, Cluster
from tests.e2e.support.scripts import count_turns
from tests.e2e.support.workspace import Workspace, tool_messages

from kubechain_cli.scripted_llm import ScriptedServer
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

TASKS = 6
TURNS = 4
PARALLEL = 2
LLM_MS = 50
TOOL_MS = 40
LONG_MS = 400
"""Long enough that a process is sure to die while it waits."""
FINISH_SECONDS = 60.0
IN_FLIGHT_SECONDS = 4.0
"""An answer that the gateway was about to pass on when it died is asked for again; nothing older may be."""
READ_SECONDS = 1.0
"""The LLM notes a request when it reads it, which may be a moment after its sender's death."""

UNKNOWN = "The outcome of the call is unknown"


@dataclass
class Run:
    """Tasks in flight, with the witnesses of what really happened."""

    workspace: Workspace
    llm: ScriptedServer
    log: Path
    names: list[str]

    def executions(self, event: str = "start") -> list[tuple[str, int, int]]:
        """(task, turn, index) of every execution, as the MCP server saw it."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        entries = [json.loads(line) for line in lines]
        return [(e["task"], e["turn"], e["index"]) for e in entries if e["event"] == event]

    def is_a_third_done(self) -> bool:
        return len(self.executions()) >= TASKS * TURNS * PARALLEL // 3

    def is_an_llm_answer_awaited(self) -> bool:
        """After the first turn, when the newest request can not have been answered for a while yet."""
        newest = max((request.time for request in self.llm.requests), default=0.0)
        return len(self.llm.requests) > TASKS and time.time() - newest < LONG_MS / 2000

    def finish(self) -> list[dict[str, Any]]:
        """The Tasks, all with their final answer."""
        deadline = time.monotonic() + FINISH_SECONDS
        tasks = []
        for name in self.names:
            left = max(1.0, deadline - time.monotonic())
            tasks.append(self.workspace.kubectl.finish(name, timeout=left))
        assert [task["status"]["output"] for task in tasks] == [f"done after {TURNS} turns"] * TASKS
        return tasks

    def requests(self) -> dict[str, list[float]]:
        """When each distinct request came, by digest."""
        seen: dict[str, list[float]] = {}
        for request in self.llm.requests:
            seen.setdefault(request.digest, []).append(request.time)
        return seen


@pytest.fixture
def run(workspace: Workspace, tmp_path: Path) -> Run:
    log = tmp_path / "executions.jsonl"
    llm = workspace.serve_llm(count_turns("counting__count"))
    workspace.kubectl.apply(manifests.own_server("counting", "counting_server.py", str(log)))
    workspace.apply_agent(llm, servers=["counting"])
    return Run(workspace, llm, log, [f"run-{number}" for number in range(TASKS)])


def start(run: Run, *, tool_ms: int, llm_ms: int) -> None:
    order = {"turns": TURNS, "parallel": PARALLEL, "ms": tool_ms, "llm_ms": llm_ms}
    run.workspace.kubectl.apply(*(manifests.task(name, json.dumps({"task": name, **order})) for name in run.names))


def expected_executions(run: Run) -> Counter[tuple[str, int, int]]:
    turns, indexes = range(1, TURNS + 1), range(PARALLEL)
    return Counter((name, turn, index) for name in run.names for turn in turns for index in indexes)


def kill_in_the_middle(
    run: Run,
    *services: str,
    when: Callable[[], object] | None = None,
    how: int = signal.SIGKILL,
    tool_ms: int = TOOL_MS,
    llm_ms: int = LLM_MS,
) -> float:
    """Start the Tasks and end the processes after a third of the work, or ``when``; seconds since the epoch of it."""
    cluster = run.workspace.cluster
    pids = {service: int(cluster.process(service)["pid"]) for service in services}
    start(run, tool_ms=tool_ms, llm_ms=llm_ms)
    eventually(when or run.is_a_third_done, FINISH_SECONDS, what=f"the moment to end {services}", interval=0.002)
    for pid in pids.values():
        os.kill(pid, how)
    killed = time.time()
    for service, pid in pids.items():
        cluster.wait_restarted(service, pid)
    return killed


def assert_windows_are_whole(run: Run, tasks: list[dict[str, Any]]) -> None:
    """Each turn is there once, with its results in call order; a call of unknown outcome says so."""
    for name, task in zip(run.names, tasks, strict=True):
        results = tool_messages(task)
        wanted = [f"counted {name} {turn} {index}" for turn in range(1, TURNS + 1) for index in range(PARALLEL)]
        assert len(results) == len(wanted)
        for result, want in zip(results, wanted, strict=True):
            assert result == want or (result.startswith("Error: ") and UNKNOWN in result), result


def assert_asked_once(run: Run, *, unless_lost_at: float | None = None) -> None:
    seen = run.requests()
    assert len(seen) >= TASKS * (TURNS + 1)
    for digest, times in seen.items():
        if len(times) == 1:
            continue
        assert unless_lost_at is not None, f"request {digest[:8]} was paid for {len(times)} times"
        assert len(times) == 2
        assert unless_lost_at - IN_FLIGHT_SECONDS < times[0] <= unless_lost_at + READ_SECONDS


def assert_ran_at_most_once_and_said_so(run: Run, tasks: list[dict[str, Any]]) -> None:
    """No tool ran twice, and the LLM was told of every call that may not have run to its end."""
    started, ended, wanted = Counter(run.executions("start")), Counter(run.executions("end")), expected_executions(run)
    assert started <= wanted, "a tool ran twice"
    assert_windows_are_whole(run, tasks)
    told = Counter(
        (name, 1 + place // PARALLEL, place % PARALLEL)
        for name, task in zip(run.names, tasks, strict=True)
        for place, result in enumerate(tool_messages(task))
        if UNKNOWN in result
    )
    assert wanted - ended <= told


@pytest.mark.parametrize("service", ["task-controller", "toolcall-controller"])
def test_a_controller_dies_in_the_middle(run: Run, service: str) -> None:
    kill_in_the_middle(run, service)
    tasks = run.finish()
    assert Counter(run.executions()) == expected_executions(run)
    assert_windows_are_whole(run, tasks)
    assert_asked_once(run)
    assert not [result for task in tasks for result in tool_messages(task) if UNKNOWN in result]


def test_the_llm_gateway_dies_in_the_middle(run: Run) -> None:
    killed = kill_in_the_middle(run, "llm-gateway", when=run.is_an_llm_answer_awaited, llm_ms=LONG_MS)
    assert any(killed - LONG_MS / 1000 < request.time < killed for request in run.llm.requests), "nothing was in flight"
    tasks = run.finish()
    assert Counter(run.executions()) == expected_executions(run)
    assert_windows_are_whole(run, tasks)
    assert_asked_once(run, unless_lost_at=killed)


@pytest.mark.requirement("concept-durability")
def test_the_mcp_host_dies_in_the_middle_of_calls(run: Run) -> None:
    kill_in_the_middle(run, "mcp-host", tool_ms=LONG_MS)
    assert run.executions("start") != run.executions("end"), "nothing was in flight"
    tasks = run.finish()
    assert_ran_at_most_once_and_said_so(run, tasks)
    assert_asked_once(run)


@pytest.mark.parametrize("processes", [("nats",), ("kube-apiserver", "etcd")], ids=["bus", "control-plane"])
def test_what_we_stand_on_dies_in_the_middle(run: Run, processes: tuple[str, ...]) -> None:
    kill_in_the_middle(run, *processes)
    tasks = run.finish()
    assert Counter(run.executions()) == expected_executions(run)
    assert_windows_are_whole(run, tasks)
    assert_asked_once(run)


def test_nats_loses_all_it_stored(run: Run) -> None:
    """The message bus is disposable: what was on its way is found again from the objects alone."""
    storage = run.workspace.cluster.state_dir / "data" / "nats"

    def lose_storage() -> bool:
        if not run.is_a_third_done():
            return False
        storage.rename(storage.with_name(f"nats-lost-{run.workspace.namespace}"))
        return True

    killed = kill_in_the_middle(run, "nats", when=lose_storage)
    tasks = run.finish()
    assert_ran_at_most_once_and_said_so(run, tasks)
    assert_asked_once(run, unless_lost_at=killed)


def test_a_rolling_restart_costs_nothing(run: Run) -> None:
    """SIGTERM, as an update sends it: calls in flight are finished first, and nothing is of unknown outcome."""
    kill_in_the_middle(run, *SERVICES, how=signal.SIGTERM, tool_ms=LONG_MS, llm_ms=LONG_MS)
    tasks = run.finish()
    assert Counter(run.executions("end")) == expected_executions(run)
    assert_windows_are_whole(run, tasks)
    assert_asked_once(run)
    assert not [result for task in tasks for result in tool_messages(task) if UNKNOWN in result]


@contextmanager
def stopped(cluster: Cluster) -> Iterator[None]:
    """Everything is down inside, with its data on disk, and up again afterwards."""
    assert cluster.run_cli("down", "--keep-data").returncode == 0
    yield
    up = cluster.run_cli("up", "--detach", timeout=120)
    assert up.returncode == 0, up.stderr


@contextmanager
def frozen(cluster: Cluster, name: str) -> Iterator[None]:
    """The process does nothing inside."""
    pid = int(cluster.process(name)["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_whole_machine_goes_down_and_comes_up(run: Run) -> None:
    start(run, tool_ms=LONG_MS, llm_ms=LONG_MS)
    eventually(run.is_a_third_done, FINISH_SECONDS, what="the moment to go down", interval=0.002)
    with stopped(run.workspace.cluster):
        came_down = time.time()
    tasks = run.finish()
    assert_ran_at_most_once_and_said_so(run, tasks)
    assert_asked_once(run, unless_lost_at=came_down)


def test_an_older_snapshot_of_etcd_is_restored(run: Run, tmp_path: Path) -> None:
    """As docs/operations.md says: Tasks go on from what the snapshot saw, and what JetStream knows to have run does not
    run again.
    """
    kubectl, cluster = run.workspace.kubectl, run.workspace.cluster
    data, snapshot = cluster.state_dir / "data" / "etcd", tmp_path / "snapshot"
    start(run, tool_ms=LONG_MS, llm_ms=LONG_MS)
    eventually(run.is_a_third_done, FINISH_SECONDS, what="the moment of the snapshot", interval=0.002)
    with frozen(cluster, "etcd"):
        shutil.copytree(data, snapshot)
    run.finish()
    run.workspace.run_task("after", json.dumps({"task": "after", "turns": 0, "parallel": 1, "ms": 1, "llm_ms": 1}))
    with stopped(cluster):
        shutil.rmtree(data)
        shutil.copytree(snapshot, data)
    assert "after" not in {task["metadata"]["name"] for task in kubectl.list("task")}
    tasks = run.finish()
    assert_ran_at_most_once_and_said_so(run, tasks)
    assert [result for task in tasks for result in tool_messages(task) if UNKNOWN in result], "nothing came after it"
