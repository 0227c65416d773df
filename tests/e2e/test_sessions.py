"""Servers that remember, on three replicas of mcp-host: ``spec.session`` keeps their calls together, or says so.

A session is a process here, whose id is in the tools' own log, or an MCP session over HTTP.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.servers.remote_server import RemoteServer
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import Cluster
from tests.e2e.support.failures import assert_told
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.replicas import Replica, run_replicas
from tests.e2e.support.scaling import Load
from tests.e2e.support.scripts import calls, in_turns
from tests.e2e.support.shown import Shown
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import Reply
from kubechain_common.testing.eventually import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240, func_only=True)]

REASON = "SessionReestablished"


@pytest.fixture(scope="module")
def replicas(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Two more than the cluster's own."""
    with run_replicas(cluster, ["mcp-host"] * 2, tmp_path_factory.mktemp("replicas")) as replicas:
        yield replicas


@pytest.fixture
def load(workspace: Workspace, tmp_path: Path) -> Load:
    return Load(workspace, tmp_path)


def remembering(load: Load, name: str, session: str) -> dict[str, Any]:
    return manifests.own_server(name, "counting_server.py", str(load.log_of(name)), session=session)


def pids_of(load: Load, server: str, task: str) -> set[int]:
    """The processes that ran the Task's calls."""
    return {n.pid for n in load.noted(server) if n.key.split("/")[1].startswith(f"{task}-")}


def told(kubectl: Kubectl, kind: str, name: str) -> list[str]:
    """The events of that reason about the object."""
    events = kubectl.list("events", f"--field-selector=reason={REASON},involvedObject.kind={kind}")
    return [event["message"] for event in events if event["involvedObject"]["name"] == name]


@pytest.mark.usefixtures("replicas")
def test_per_task_each_task_has_a_process_of_its_own_and_keeps_it(load: Load) -> None:
    load.apply(remembering(load, "own", "PerTask"))
    names = load.begin("own", 5, turns=4, parallel=2, ms=50)
    load.wait_finished(names)
    assert set(load.assert_once_or_unknown(names, "own")) == {"Succeeded"}
    processes = [pids_of(load, "own", name) for name in names]
    assert all(len(pids) == 1 for pids in processes), processes
    assert len(set.union(*processes)) == len(names)
    eventually(lambda: not any(is_alive(pid) for pids in processes for pid in pids), 20, what="sessions end with Tasks")
    assert told(load.kubectl, "MCPServer", "own") == []


@pytest.mark.usefixtures("replicas")
def test_shared_all_calls_of_all_tasks_run_in_one_process(load: Load) -> None:
    load.apply(remembering(load, "one", "Shared"))
    names = load.begin("one", 5, turns=3, parallel=2, ms=50)
    load.wait_finished(names)
    assert set(load.assert_once_or_unknown(names, "one")) == {"Succeeded"}
    assert len({n.pid for n in load.noted("one")}) == 1


@pytest.mark.usefixtures("replicas")
def test_over_http_each_task_has_an_mcp_session_of_its_own(workspace: Workspace, servers: BackgroundLoop) -> None:
    remote = RemoteServer()
    url = servers.serve(remote.build_app()) + "/mcp"
    server = manifests.http_server("remote", url)
    server["spec"]["session"] = "PerTask"
    workspace.kubectl.apply(server)
    greet = calls(("remote__greet", {}))
    workspace.apply_agent(workspace.serve_llm(in_turns(greet, greet, greet, Reply("bye"))), ["remote"])
    for name in ("first", "second", "third"):
        workspace.run_task(name, "greet three times")
    sessions = remote.ran_in
    assert len(sessions) == 9
    assert [len(set(sessions[n : n + 3])) for n in (0, 3, 6)] == [1, 1, 1]
    assert len(set(sessions)) == 3


@pytest.mark.failure("server-session-lost")
def test_a_session_whose_replica_dies_begins_anew_elsewhere_and_says_so(
    cluster: Cluster, load: Load, replicas: list[Replica]
) -> None:
    load.apply(remembering(load, "own", "PerTask"), remembering(load, "one", "Shared"))
    hosts = {replica.process.pid for replica in replicas} | {int(cluster.process("mcp-host")["pid"])}
    [own] = load.begin("own", 1, turns=8, parallel=1, ms=1500)
    [one] = load.begin("one", 1, turns=8, parallel=1, ms=1500)
    eventually(lambda: len(load.noted("own")) >= 2 and len(load.noted("one")) >= 2, 30, what="calls")
    victims = {find_owner(hosts, pid) for pid in pids_of(load, "own", own) | pids_of(load, "one", one)}
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    for name, server in ((own, "own"), (one, "one")):
        load.wait_finished([name])
        ended = load.assert_once_or_unknown([name], server)
        assert ended["OutcomeUnknown"] <= 1, "the call that ran when its replica died"
        assert len(pids_of(load, server, name)) == 2, "one process before, one after"
        eventually(lambda name=name: told(load.kubectl, "Task", name), 20, what="an event on the Task")  # type: ignore[misc]
        assert told(load.kubectl, "MCPServer", server)
    [message] = told(load.kubectl, "Task", own)
    assert message.startswith('The session with MCPServer "own" was established anew, on replica "')
    assert message.endswith("what the server remembered of earlier calls is gone.")
    assert_told("server-session-lost", Shown(load.kubectl), own)


def test_a_session_is_not_changed_but_made_again(load: Load) -> None:
    load.kubectl.apply(remembering(load, "own", "PerTask"))
    refused = load.kubectl.try_run("patch", "mcpserver", "own", "--type=merge", "-p", '{"spec": {"session": "Shared"}}')
    assert refused.returncode != 0
    assert "session is immutable: delete the MCPServer and make it again with another" in refused.stderr


def find_owner(hosts: set[int], process: int) -> int:
    """Which of the replicas started the process."""
    while process not in hosts:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        assert process > 1, "no replica started it"
    return process


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
