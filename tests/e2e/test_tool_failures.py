"""Each row of "Tools and MCP servers" in docs/failures.md: what kubectl shows, what the model reads, how it goes on.

All Tasks share one namespace, one model that does as it is told, and one MCPServer that fails in every way it knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from tests.e2e.servers.remote_server import RemoteServer
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import SERVICES, Cluster
from tests.e2e.support.failures import assert_told
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.obedient import finish, obey, run, start
from tests.e2e.support.shown import Shown
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import ScriptedServer
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""What the tool "picture" returns."""

MEMORY_SLACK = 120 * 1024 * 1024


@dataclass
class Plant:
    """The namespace and what is in it; ``notes`` is what the faulty servers note."""

    workspace: Workspace
    llm: ScriptedServer
    notes: Path

    def run(self, task: str, *calls: tuple[str, str]) -> list[str]:
        return run(self.workspace, self.llm, task, list(calls))

    def count(self, what: str) -> int:
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return sum(line.startswith(what + " ") for line in lines)

    def told(self, row_id: str, *names: str) -> None:
        assert_told(row_id, Shown(self.workspace.kubectl), *names)

    def apply_server(self, name: str, *options: str, **spec: Any) -> None:
        self.workspace.kubectl.apply(manifests.own_server(name, "faulty_server.py", str(self.notes), *options, **spec))

    def apply_server_with_agent(self, name: str, **spec: Any) -> None:
        """A server of its own and the only agent that uses it, both of this name."""
        self.apply_server(name, **spec)
        self.workspace.kubectl.apply(manifests.agent(name, servers=[name]))
        self.workspace.kubectl.wait(f"agent/{name}")


def service_pids(cluster: Cluster) -> dict[str, int]:
    return {p["name"]: p["pid"] for p in cluster.status()["processes"] if p["name"] in SERVICES}


@pytest.fixture(scope="module", autouse=True)
def no_service_restarts(cluster: Cluster) -> Iterator[None]:
    """Whatever a tool does, the services are the same processes afterwards."""
    before = service_pids(cluster)
    yield
    assert service_pids(cluster) == before


@pytest.fixture(scope="module")
def plant(cluster: Cluster, servers: BackgroundLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    admin, namespace = Kubectl(cluster.kubeconfig, "default"), f"e2e-{uuid4().hex[:8]}"
    admin("create", "namespace", namespace)
    workspace = Workspace(cluster, servers, namespace)
    plant = Plant(workspace, workspace.serve_llm(obey), tmp_path_factory.mktemp("notes") / "notes")
    plant.apply_server("faulty")
    workspace.apply_agent(plant.llm, servers=["faulty"])
    yield plant
    admin("delete", "namespace", namespace, "--wait=false")


@pytest.mark.failure("tool-unknown")
def test_unknown_tool(plant: Plant) -> None:
    (read,) = plant.run("unknown", ("faulty__nothing", "{}"))
    assert read == 'Error: Unknown tool "faulty__nothing": the agent has no tool of this name'
    plant.told("tool-unknown", "unknown")


@pytest.mark.failure("tool-arguments-no-json", "tool-arguments-no-object", "tool-arguments-schema")
def test_unusable_arguments(plant: Plant) -> None:
    cases = ('{"unfinished": ', "[1, 2]", '{"city": "Oslo", "days": "two"}', '{"city": "Oslo"}', '{"city": "\\ud800"}')
    read = plant.run("arguments", *(("faulty__strict", case) for case in cases))
    assert read[0].startswith("Error: The arguments are not valid JSON: ")
    assert read[1] == "Error: The arguments have to be a JSON object, not an array."
    assert read[2] == 'Error: The arguments do not fit the tool "strict": "days" must be of type integer, not "two".'
    assert read[3] == 'Error: The arguments do not fit the tool "strict": "days" missing in the arguments.'
    assert read[4] == "Error: The arguments hold half a surrogate pair, which is no character."
    assert {call["status"]["reason"] for call in plant.workspace.calls_of("arguments")} == {"InvalidArguments"}
    assert plant.count("strict") == 0
    assert plant.run("good-arguments", ("faulty__strict", '{"city": "Oslo", "days": 2}')) == ["ran strict"]
    for row in ("tool-arguments-no-json", "tool-arguments-no-object", "tool-arguments-schema"):
        plant.told(row, "arguments")


@pytest.mark.failure("tool-error", "tool-exception")
def test_failing_tools(plant: Plant) -> None:
    assert plant.run("failing", ("faulty__fail", "{}"), ("faulty__break", "{}")) == [
        "Error: the backend is on fire",
        "Error: MCPServer \"faulty\" refused the call: KeyError: 'nobody thought of this'",
    ]
    plant.told("tool-error", "failing")
    plant.told("tool-exception", "failing")


@pytest.mark.failure("tool-timeout")
def test_a_hanging_tool(plant: Plant) -> None:
    plant.apply_server_with_agent("impatient", requestTimeoutSeconds=1)
    cancelled = plant.count("cancelled")
    sleep, after = ("impatient__sleep", '{"seconds": 60}'), ("impatient__empty", "{}")
    turns = [[sleep], [after], [after]]  # twice: a machine that stands still for a second takes the time of one
    start(plant.workspace, "hanging", *turns, agent="impatient")
    read, *again = finish(plant.workspace, plant.llm, "hanging", *turns)
    assert "did not answer within 1 seconds (spec.requestTimeoutSeconds)" in read
    assert "[no content]" in again
    reasons = {call["status"]["reason"] for call in plant.workspace.calls_of("hanging")}
    assert reasons == {"Succeeded", "Timeout"}
    eventually(lambda: plant.count("cancelled") == cancelled + 1, 15.0, what="the server is told to give up")
    plant.told("tool-timeout", "hanging")


@pytest.mark.failure("tool-large-result", "tool-odd-results", "tool-stdout-garbage")
def test_strange_results(plant: Plant) -> None:
    tools = ("flood", "picture", "empty", "odd", "chatter")
    read = plant.run("strange", *((f"faulty__{tool}", '{"bytes": 10000000}') for tool in tools))
    assert read[0].endswith(" of 10,000,000 bytes]")
    assert len(read[0]) <= 256 * 1024
    assert read[1:3] == ["[image/png, 70 bytes]", "[no content]"]
    assert read[3] == "half \ufffd stray \ufffd nul \0 end"
    assert read[4] == "ran chatter"
    for row in ("tool-large-result", "tool-odd-results", "tool-stdout-garbage"):
        plant.told(row, "strange")


def test_a_model_that_takes_images_is_shown_those_of_its_tools(plant: Plant) -> None:
    """The window names them, a ConfigMap of the Task keeps them, and the model sees them in every turn after."""
    workspace, turns = plant.workspace, [[("faulty__picture", "{}")], [("faulty__pid", "{}")]]
    seeing = manifests.llm(plant.llm.url, "seeing")
    seeing["spec"]["acceptsImages"] = True
    workspace.kubectl.apply(seeing, manifests.agent("seeing", servers=["faulty"], llmRef={"name": "seeing"}))
    workspace.kubectl.wait("agent/seeing")
    before = len(plant.llm.requests)
    start(workspace, "look", *turns, agent="seeing")
    assert finish(workspace, plant.llm, "look", *turns)[0] == "[image/png, 70 bytes]"
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    seen = [_images_in(request.body) for request in list(plant.llm.requests)[before:] if "messages" in request.body]
    assert seen == [[], [url], [url]]
    call = next(call for call in workspace.calls_of("look") if call["status"].get("images"))
    stored = workspace.kubectl.get("configmap", call["status"]["images"][0]["configMapKeyRef"]["name"])
    assert stored["data"] == {"image": PIXEL}
    workspace.kubectl("delete", "task", "look")
    eventually(lambda: stored["metadata"]["name"] not in _names(workspace.kubectl.list("configmap")), 30)


def _names(objects: list[dict[str, Any]]) -> set[str]:
    return {obj["metadata"]["name"] for obj in objects}


def _images_in(body: dict[str, Any]) -> list[Any]:
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return [part for content in contents for part in content if part["type"] == "image_url"]


@pytest.mark.failure("tool-flood")
def test_a_result_without_an_end(plant: Plant) -> None:
    plant.apply_server_with_agent("flooding")
    host = psutil.Process(plant.workspace.cluster.process("mcp-host")["pid"])
    before = host.memory_info().rss
    turns = [[("flooding__flood", '{"bytes": 100000000}')], [("flooding__pid", "{}")]]
    start(plant.workspace, "endless", *turns, agent="flooding")
    flood, pid = finish(plant.workspace, plant.llm, "endless", *turns)
    assert host.memory_info().rss - before < MEMORY_SLACK
    assert "sent more than 16,777,216 bytes" in flood
    assert pid.isdigit()
    plant.told("tool-flood", "endless", "flooding")


@pytest.mark.failure("tool-dies", "tool-dies-repeatable")
def test_a_server_that_dies_in_mid_call(plant: Plant) -> None:
    turns = [[("faulty__die", "{}")], [("faulty__die_safely", "{}")]]
    start(plant.workspace, "dying", *turns)
    read = finish(plant.workspace, plant.llm, "dying", *turns)
    assert read[0].startswith("Error: The outcome of the call is unknown: the connection to the MCP server was lost")
    assert read[1] == "ran die_safely"
    assert (plant.count("die"), plant.count("die_safely")) == (1, 2)
    plant.told("tool-dies", "dying", "faulty")
    plant.told("tool-dies-repeatable", "dying")


@pytest.mark.failure("tool-over-memory")
def test_a_server_that_takes_too_much_memory(plant: Plant) -> None:
    plant.apply_server_with_agent("hungry", resources={"limits": {"memory": "96Mi"}})
    turns = [[("hungry__pid", "{}")], [("hungry__eat", '{"mebibytes": 200, "seconds": 60}')], [("hungry__pid", "{}")]]
    start(plant.workspace, "eating", *turns, agent="hungry")
    first, ended, second = finish(plant.workspace, plant.llm, "eating", *turns)
    assert "its limit is 96Mi (spec.resources.limits.memory)" in ended
    assert first != second
    plant.told("tool-over-memory", "eating", "hungry")


@pytest.mark.failure("tool-server-stuck")
def test_a_server_that_no_longer_answers_is_restarted(plant: Plant) -> None:
    plant.apply_server_with_agent("stuck", requestTimeoutSeconds=2)
    pid = ("stuck__pid", "{}")
    turns = [[pid], [("stuck__sleep", '{"seconds": 60}')] * 3, [pid]]
    start(plant.workspace, "unanswered", *turns, agent="stuck")
    first, *timeouts, second = finish(plant.workspace, plant.llm, "unanswered", *turns)
    assert all("did not answer within 2 seconds" in text for text in timeouts)
    assert first != second
    assert not psutil.pid_exists(int(first))
    plant.told("tool-server-stuck", "stuck", "unanswered")


@pytest.mark.failure("server-exits", "server-missing-command")
def test_a_server_that_does_not_start(plant: Plant) -> None:
    kubectl = plant.workspace.kubectl
    plant.apply_server("exiting", "--exit")
    kubectl.apply(manifests.stdio_server("missing", "no-such-command-anywhere"))
    for name in ("exiting", "missing"):
        kubectl.wait(f"mcpserver/{name}", "jsonpath={.status.status}=Error")
    plant.told("server-exits", "exiting")
    plant.told("server-missing-command", "missing")
    plant.apply_server("exiting", "--noise")
    plant.apply_server("missing")
    for name in ("exiting", "missing"):
        kubectl.wait(f"mcpserver/{name}", "jsonpath={.status.status}=Ready")


@pytest.mark.failure("server-lists-nothing")
def test_a_server_that_never_lists_its_tools_holds_up_nobody(plant: Plant) -> None:
    kubectl = plant.workspace.kubectl
    plant.apply_server("listless", "--no-list")
    kubectl.wait("mcpserver/listless", "jsonpath={.status.status}=Pending")
    plant.told("server-lists-nothing", "listless")
    assert plant.run("meanwhile", ("faulty__empty", "{}")) == ["[no content]"]
    plant.apply_server("listless")
    kubectl.wait("mcpserver/listless", "jsonpath={.status.status}=Ready")


@pytest.mark.failure("server-tools-change", "server-tool-vanished", "server-tool-removed")
def test_a_server_that_changes_its_tools(plant: Plant) -> None:
    kubectl = plant.workspace.kubectl
    plant.apply_server("changing")
    picky = manifests.agent("picky")
    picky["spec"]["mcpServers"] = [{"name": "changing", "tools": ["old", "swap"]}]
    kubectl.apply(manifests.agent("flexible", servers=["changing"]), picky)
    for name in ("flexible", "picky"):
        kubectl.wait(f"agent/{name}")
    # In one turn: when the last call runs, its tool is gone.
    turns = [[("changing__swap", "{}")], [("changing__new", "{}"), ("changing__old", "{}")]]
    start(plant.workspace, "changing", *turns, agent="flexible")
    swapped, new, old = finish(plant.workspace, plant.llm, "changing", *turns)
    assert swapped == "ran swap"
    assert new.startswith(("ran new", 'Error: Unknown tool "changing__new"'))  # offered from the next turn on
    assert "old" in old

    def tools() -> list[str]:
        (valid,) = kubectl.get("agent", "flexible")["status"]["validMCPServers"]
        names: list[str] = valid["tools"]
        return names

    eventually(lambda: "new" in tools() and "old" not in tools(), 15.0, what="the agent offers the new tool")
    plant.told("server-tools-change", "changing")
    kubectl.wait("agent/picky", "jsonpath={.status.ready}=false")
    plant.told("server-tool-vanished", "picky")
    # A call that was made for a tool which is gone by now.
    turns = [[("changing__old", "{}")]]
    start(plant.workspace, "removed", *turns, agent="flexible")
    assert "old" in finish(plant.workspace, plant.llm, "removed", *turns)[0]
    plant.told("server-tool-removed", "removed")


@pytest.mark.failure("server-secret-missing", "server-secret-removed", "server-secret-rotated")
def test_the_secret_of_a_server(plant: Plant) -> None:
    kubectl, workspace = plant.workspace.kubectl, plant.workspace
    environment = [manifests.from_secret("TENANT_TOKEN", "tenant", "token")]
    kubectl.apply(
        manifests.own_server("tenant", "tenant_server.py", env=environment),
        manifests.agent("tenant", servers=["tenant"]),
    )
    kubectl.wait("mcpserver/tenant", "jsonpath={.status.status}=Pending")
    plant.told("server-secret-missing", "tenant")
    whoami = [("tenant__whoami", "{}")]
    for task in ("first-key", "rotated-key"):
        token = workspace.new_secret("tenant")
        kubectl.apply(manifests.secret("tenant", token=token))
        kubectl.wait("agent/tenant")
        wanted = hashlib.sha256(token.encode()).hexdigest()[:16]

        def is_in_use(task: str = task, wanted: str = wanted) -> bool:
            name = f"{task}-{uuid4().hex[:4]}"
            start(workspace, name, whoami, agent="tenant")
            return finish(workspace, plant.llm, name, whoami) == [wanted]

        eventually(is_in_use, 20.0, what=f"the server runs with the token of {task}")
    plant.told("server-secret-rotated", "tenant")
    kubectl("delete", "secret", "tenant")
    kubectl.wait("mcpserver/tenant", "jsonpath={.status.status}=Pending")
    start(workspace, "no-key", whoami, agent="tenant")
    plant.told("server-secret-removed", "tenant", "no-key")
    kubectl.apply(manifests.secret("tenant", token=workspace.new_secret("tenant")))
    finish(workspace, plant.llm, "no-key", whoami)


@pytest.mark.failure("server-http-refused", "server-http-401", "server-http-500", "server-http-redirect")
def test_an_http_server_that_can_not_be_connected_to(plant: Plant, servers: BackgroundLoop) -> None:
    kubectl = plant.workspace.kubectl
    kubectl.apply(manifests.http_server("http-refused", "http://127.0.0.1:9/mcp"))
    remotes = {}
    for name, status in (("http-401", 401), ("http-500", 500), ("http-redirect", 307)):
        remotes[name] = RemoteServer()
        remotes[name].status = status
        kubectl.apply(manifests.http_server(name, servers.serve(remotes[name].build_app()) + "/mcp"))
    for name in ("http-refused", *remotes):
        kubectl.wait(f"mcpserver/{name}", "jsonpath={.status.status}=Error")
        plant.told(f"server-{name}", name)
    good = RemoteServer()
    kubectl.apply(manifests.http_server("http-refused", servers.serve(good.build_app()) + "/mcp"))
    for remote in remotes.values():
        remote.status = 200
    for name in ("http-refused", *remotes):
        kubectl.wait(f"mcpserver/{name}", "jsonpath={.status.status}=Ready")


@pytest.mark.failure("server-http-gone", "server-http-session-lost")
def test_an_http_server_that_goes_away_and_comes_back(plant: Plant, servers: BackgroundLoop) -> None:
    kubectl, remote = plant.workspace.kubectl, RemoteServer()
    kubectl.apply(
        manifests.http_server("remote", servers.serve(remote.build_app()) + "/mcp"),
        manifests.agent("remote", servers=["remote"]),
    )
    kubectl.wait("agent/remote")
    greet = [("remote__greet", "{}")]
    remote.forget_sessions()
    start(plant.workspace, "session-lost", greet, agent="remote")
    assert finish(plant.workspace, plant.llm, "session-lost", greet) == ["hello 1"]
    plant.told("server-http-session-lost", "session-lost")
    kubectl.wait("agent/remote")
    remote.status = 502
    start(plant.workspace, "remote-gone", greet, agent="remote")
    kubectl.wait("agent/remote", "jsonpath={.status.ready}=false")
    start(plant.workspace, "remote-late", greet, agent="remote")
    plant.told("server-http-gone", "remote")
    assert remote.ran == 1
    remote.status = 200
    plant.workspace.kubectl.finish("remote-gone")
    assert finish(plant.workspace, plant.llm, "remote-late", greet) == ["hello 2"]
