"""Each row of "Objects that change in mid-run" in docs/failures.md. A tool that waits at a gate holds the run there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import SERVICES, Cluster
from tests.e2e.support.failures import assert_told, read_failures
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.obedient import Turn, finish, obey, start, write_order
from tests.e2e.support.shown import Shown
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import ScriptedServer
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

EMPTY: Turn = [("gated__empty", "{}")]
SECONDS = 8.0


@dataclass
class Gates:
    """Runs that wait at a gate of the name of their Task; ``folder`` is where the servers look for open gates."""

    workspace: Workspace
    llm: ScriptedServer
    folder: Path
    turns: dict[str, list[Turn]] = field(default_factory=dict)

    def server(self, name: str, *options: str, **spec: Any) -> manifests.Object:
        return manifests.own_server(name, "faulty_server.py", str(self.folder / "notes"), *options, **spec)

    def add_agent(self, name: str, *servers: str) -> None:
        self.workspace.kubectl.apply(*(self.server(s) for s in servers), manifests.agent(name, servers=servers))
        self.workspace.kubectl.wait(f"agent/{name}")

    def start(self, task: str, *more: Turn, agent: str = "my-assistant", server: str = "gated") -> None:
        """Returns when the Task's first call waits at its gate."""
        self.turns[task] = [[(f"{server}__gate", json.dumps({"name": task}))], *more]
        before = self.count("gate")
        start(self.workspace, task, *self.turns[task], agent=agent)
        eventually(lambda: self.count("gate") > before, SECONDS, what=f"{task} at its gate")

    def open(self, task: str) -> None:
        (self.folder / task).touch()

    def finish(self, task: str) -> list[str]:
        read = finish(self.workspace, self.llm, task, *self.turns[task])
        assert self.asked(task) == len(self.turns[task]) + 1, (
            "the model was asked again for a turn that it had answered"
        )
        return read

    def asked(self, task: str) -> int:
        order = write_order(*self.turns[task])
        return sum(any(m["content"] == order for m in request.body["messages"]) for request in self.llm.requests)

    def count(self, tool: str) -> int:
        notes = self.folder / "notes"
        return sum(line.startswith(tool + " ") for line in notes.read_text().splitlines()) if notes.exists() else 0

    def told(self, row_id: str, *names: str) -> None:
        assert_told(row_id, Shown(self.workspace.kubectl), *names)


def service_pids(cluster: Cluster) -> dict[str, int]:
    return {p["name"]: p["pid"] for p in cluster.status()["processes"] if p["name"] in SERVICES}


@pytest.fixture(scope="module", autouse=True)
def no_service_restarts(cluster: Cluster) -> Iterator[None]:
    before = service_pids(cluster)
    yield
    assert service_pids(cluster) == before


@pytest.fixture(scope="module")
def gates(cluster: Cluster, servers: BackgroundLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gates]:
    admin, namespace = Kubectl(cluster.kubeconfig, "default"), f"e2e-{uuid4().hex[:8]}"
    admin("create", "namespace", namespace)
    workspace = Workspace(cluster, servers, namespace)
    gates = Gates(workspace, workspace.serve_llm(obey), tmp_path_factory.mktemp("gates"))
    workspace.kubectl.apply(gates.server("gated"))
    workspace.apply_agent(gates.llm, servers=["gated"])
    yield gates
    admin("delete", "namespace", namespace, "--wait=false")


@pytest.mark.failure("agent-edited")
def test_an_agent_is_edited(gates: Gates) -> None:
    gates.add_agent("edited", "gated")
    gates.start("editing", EMPTY, agent="edited")
    edited = manifests.agent("edited", system="You are somebody else.")
    edited["spec"]["mcpServers"] = [{"name": "gated", "tools": ["gate"]}]
    gates.workspace.kubectl.apply(edited)
    eventually(lambda: gates.workspace.kubectl.get("agent", "edited")["status"].get("observedGeneration") == 2, SECONDS)
    gates.open("editing")
    assert gates.finish("editing") == [
        "ran gate",
        'Error: Unknown tool "gated__empty": the agent has no tool of this name',
    ]
    last = gates.llm.requests
    order = write_order(*gates.turns["editing"])
    (*_, body) = [request.body for request in last if request.body["messages"][1]["content"] == order]
    assert body["messages"][0]["content"] == manifests.SYSTEM
    assert [tool["function"]["name"] for tool in body["tools"]] == ["gated__gate"]
    gates.told("agent-edited", "editing")


@pytest.mark.failure("agent-deleted")
def test_an_agent_is_deleted_and_made_again(gates: Gates) -> None:
    gates.add_agent("fleeting", "gated")
    gates.start("orphaned", EMPTY, agent="fleeting")
    gates.workspace.kubectl("delete", "agent", "fleeting")
    gates.open("orphaned")
    gates.told("agent-deleted", "orphaned")
    task = gates.workspace.kubectl.get("task", "orphaned")
    assert (task["status"]["phase"], task["status"]["turn"]) == ("SendContextWindowToLLM", 2)
    gates.add_agent("fleeting", "gated")
    assert gates.finish("orphaned") == ["ran gate", "[no content]"]


@pytest.mark.failure("agent-unready")
def test_an_agent_turns_unready(gates: Gates) -> None:
    kubectl = gates.workspace.kubectl
    gates.add_agent("leaning", "gated", "prop")
    gates.start("leaning", EMPTY, agent="leaning")
    kubectl.apply(gates.server("prop", "--exit"))
    kubectl.wait("agent/leaning", "jsonpath={.status.ready}=false")
    gates.open("leaning")
    gates.told("agent-unready", "leaning")
    assert kubectl.get("task", "leaning")["status"]["messageCount"] == 4
    kubectl.apply(gates.server("prop"))
    assert gates.finish("leaning") == ["ran gate", "[no content]"]


@pytest.mark.failure("server-deleted")
def test_a_server_is_deleted_and_made_again(gates: Gates) -> None:
    kubectl = gates.workspace.kubectl
    gates.add_agent("bereft", "doomed")
    gates.start("bereft", [("doomed__empty", "{}")], agent="bereft", server="doomed")
    kubectl("delete", "mcpserver", "doomed")
    gates.told("server-deleted", "bereft")
    kubectl.apply(gates.server("doomed"))
    unknown, empty = gates.finish("bereft")
    assert unknown.startswith("Error: ")
    assert "unknown" in unknown
    assert empty == "[no content]"


@pytest.mark.failure("server-edited")
def test_a_server_is_edited(gates: Gates) -> None:
    gates.add_agent("moving", "changed")
    pid: Turn = [("changed__pid", "{}")]
    gates.start("moving", pid, agent="moving", server="changed")
    before = gates.count("pid")
    gates.workspace.kubectl.apply(gates.server("changed", "--other"))
    gates.open("moving")
    assert gates.finish("moving")[0] == "ran gate"
    assert gates.count("pid") == before + 1
    gates.told("server-edited", "moving")


@pytest.mark.failure("call-deleted")
def test_a_call_is_deleted(gates: Gates) -> None:
    gates.start("bereaved", EMPTY)
    ran = gates.count("gate")
    (call,) = gates.workspace.calls_of("bereaved")
    gates.workspace.kubectl("delete", "taskruntoolcall", call["metadata"]["name"])
    unknown, empty = gates.finish("bereaved")
    gates.open("bereaved")
    assert unknown.startswith("Error: The outcome of the call is unknown")
    assert (empty, gates.count("gate")) == ("[no content]", ran)
    again = gates.workspace.kubectl.get("taskruntoolcall", call["metadata"]["name"])
    assert again["metadata"]["uid"] != call["metadata"]["uid"]
    gates.told("call-deleted", "bereaved")


@pytest.mark.failure("call-edited")
def test_the_status_of_a_call_is_written_by_hand(gates: Gates) -> None:
    gates.start("forged", EMPTY)
    (call,) = gates.workspace.calls_of("forged")
    status = {"phase": "Succeeded", "status": "Succeeded", "result": "written by hand"}
    gates.workspace.kubectl(
        "patch",
        "taskruntoolcall",
        call["metadata"]["name"],
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": status}),
    )
    assert gates.finish("forged") == ["written by hand", "[no content]"]
    gates.open("forged")
    gates.told("call-edited", "forged")


@pytest.mark.failure("task-deleted")
def test_a_task_is_deleted(gates: Gates) -> None:
    kubectl = gates.workspace.kubectl
    gates.start("unwanted", EMPTY)
    kubectl("delete", "task", "unwanted")
    eventually(lambda: not gates.workspace.calls_of("unwanted"), 15.0, what="the calls go with their Task")
    gates.open("unwanted")
    gates.start("wanted")
    gates.open("wanted")
    assert gates.finish("wanted") == ["ran gate"]
    assert gates.asked("unwanted") == 1
    (phrase,) = read_failures()["task-deleted"].phrases
    assert phrase in kubectl.try_run("get", "task", "unwanted").stderr


@pytest.mark.failure("namespace-deleted")
def test_a_namespace_is_deleted(gates: Gates, cluster: Cluster, servers: BackgroundLoop) -> None:
    admin, namespace = Kubectl(cluster.kubeconfig, "default"), f"e2e-{uuid4().hex[:8]}"
    admin("create", "namespace", namespace)
    doomed = Gates(Workspace(cluster, servers, namespace), gates.llm, gates.folder)
    doomed.workspace.kubectl.apply(doomed.server("gated"))
    doomed.workspace.apply_agent(gates.llm, servers=["gated"])
    doomed.start("swept-away", EMPTY)
    admin("delete", "namespace", namespace, timeout=40.0)
    assert doomed.asked("swept-away") <= 2
    gates.start("elsewhere")
    gates.open("elsewhere")
    assert gates.finish("elsewhere") == ["ran gate"]
    gates.told("namespace-deleted", "elsewhere")
