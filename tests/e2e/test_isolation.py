"""Two namespaces with objects of the same names never see each other: not their tools, not their secrets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.workspace import Workspace, tool_messages

from kubechain_cli.scripted_llm import SCRIPTS, fingerprint
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

TASKS = 6
KINDS = ("llm", "agent", "mcpserver", "task", "taskruntoolcall")
WHOAMI = json.dumps({"turns": 2, "tool": "tenant__whoami", "arguments": {}, "parallel": 2})
COUNT = json.dumps({"task": "count", "turns": 1, "parallel": 1, "ms": 0, "llm_ms": 0})


def test_equal_names_in_two_namespaces_never_mix(new_workspace: Callable[[], Workspace]) -> None:
    tenants = [(workspace, workspace.new_secret("tenant")) for workspace in (new_workspace(), new_workspace())]
    llm = tenants[0][0].serve_llm(SCRIPTS["tools"])
    for workspace, token in tenants:
        environment = [manifests.from_secret("TENANT_TOKEN", "tenant", "token")]
        workspace.kubectl.apply(
            manifests.secret("tenant", token=token),
            manifests.own_server("tenant", "tenant_server.py", env=environment),
        )
        workspace.apply_agent(llm, servers=["tenant"], wait=False)
    names = [f"ask-{number}" for number in range(TASKS)]
    for workspace, _ in tenants:
        workspace.kubectl.wait("agent/my-assistant", timeout=30)
    for workspace, _ in tenants:
        workspace.kubectl.apply(*(manifests.task(name, WHOAMI) for name in names))
    for workspace, token in tenants:
        own = hashlib.sha256(token.encode()).hexdigest()[:16]
        for name in names:
            assert tool_messages(workspace.kubectl.finish(name)) == [own] * 4
    assert {request.key_fingerprint for request in llm.requests} == {fingerprint(w.key) for w, _ in tenants}


def test_servers_keys_statuses_and_deletion_stay_in_their_namespace(new_workspace: Callable[[], Workspace]) -> None:
    """Everything is named alike, and each namespace has an LLM server, a key and a tool's secret of its own."""
    left, right = new_workspace(), new_workspace()
    tokens = {workspace: workspace.new_secret("tenant") for workspace in (left, right)}
    llms = {w: w.serve_llm(SCRIPTS["tools"], require_key=w.key) for w in (left, right)}
    for workspace, token in tokens.items():
        environment = [manifests.from_secret("TENANT_TOKEN", "tenant", "token")]
        workspace.kubectl.apply(
            manifests.secret("tenant", token=token),
            manifests.own_server("tenant", "tenant_server.py", env=environment),
        )
        workspace.kubectl.apply(
            manifests.secret("openai", OPENAI_API_KEY=workspace.key),
            manifests.llm(llms[workspace].url),
            manifests.agent(servers=["tenant"], system=f"You work for {workspace.namespace}."),
        )
    for workspace in tokens:
        workspace.kubectl.wait("agent/my-assistant", timeout=30)
    for workspace in tokens:
        workspace.kubectl.apply(*(manifests.task(f"ask-{number}", WHOAMI) for number in range(TASKS)))
    for workspace, token in tokens.items():
        own = hashlib.sha256(token.encode()).hexdigest()[:16]
        for number in range(TASKS):
            assert tool_messages(workspace.kubectl.finish(f"ask-{number}")) == [own] * 4
    for workspace, other in ((left, right), (right, left)):
        assert {request.key_fingerprint for request in llms[workspace].requests} == {fingerprint(workspace.key)}
        said = b"".join(request.raw for request in llms[workspace].requests)
        assert workspace.namespace.encode() in said
        assert other.namespace.encode() not in said
        uids = {item["metadata"]["uid"] for kind in KINDS for item in workspace.kubectl.list(kind)}
        for event in workspace.kubectl.list("events"):
            assert event["involvedObject"]["uid"] in uids

    before = right.kubectl.get("mcpserver", "tenant")["status"]
    left.kubectl("delete", "task,agent,mcpserver,llm,secret", "--all", "--wait=true")
    again = right.run_task("after", WHOAMI)
    assert tool_messages(again) == [hashlib.sha256(tokens[right].encode()).hexdigest()[:16]] * 4
    assert right.kubectl.get("mcpserver", "tenant")["status"] == before
    assert len(right.kubectl.list("task")) == TASKS + 1


def test_calls_of_a_server_ask_for_approval_where_it_says_so_and_not_where_its_namesake_does_not(
    new_workspace: Callable[[], Workspace], tmp_path: Path
) -> None:
    guarded, free = new_workspace(), new_workspace()
    guarded.apply_inbox("approvers")
    for folder in (folders := [tmp_path / "guarded", tmp_path / "free"]):
        folder.mkdir()
    watched = guarded.apply_counting_agent(folders[0], approvalContactChannel={"name": "approvers"})
    unwatched = free.apply_counting_agent(folders[1])
    for workspace in (guarded, free):
        workspace.kubectl.apply(manifests.task("count", COUNT))
    assert tool_messages(free.kubectl.finish("count")) == ["counted count 1 0"]
    assert not any(call["status"].get("externalCallID") for call in free.calls_of("count"))
    (call,) = eventually(lambda: guarded.calls_of("count"), 10.0, what="the guarded call")
    name = call["metadata"]["name"]
    guarded.kubectl.wait(f"taskruntoolcall/{name}", "jsonpath={.status.status}=AwaitingHumanApproval")
    assert watched.of("start") == []
    guarded.kubectl("patch", "taskruntoolcall", name, "--type=merge", "-p", '{"spec":{"decision":{"approved":true}}}')
    assert tool_messages(guarded.kubectl.finish("count")) == ["counted count 1 0"]
    assert watched.of("start") == unwatched.of("start") == [("count", 0)]
