"""Agents that delegate to agents: a tree of Tasks is one piece of work, whatever happens to it.

The witnesses are not the product's: the MCP server's own log of its executions, and the requests that the LLM got.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import SERVICES
from tests.e2e.support.delegating import (
    FAMILY,
    apply_family,
    count,
    delegate,
    report,
    tree_labels,
    tree_order,
    tree_output,
)
from tests.e2e.support.humanlayer import API_KEY as HUMANLAYER_KEY
from tests.e2e.support.humanlayer import HumanLayer
from tests.e2e.support.obedient import write_order
from tests.e2e.support.otlp import SpanSeen, SpanStore
from tests.e2e.support.tables import read_events
from tests.e2e.support.workspace import UNTIL_OPEN, ToolLog, Workspace, reason_of, tool_messages

from kubechain_cli.scripted_llm import ScriptedServer
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

LONG_MS = 60_000
SOON = 10.0
TREES = 4
CANCEL = json.dumps({"spec": {"cancel": True}})
OWNED = "task,taskruntoolcall"


def tasks_of(workspace: Workspace, agent: str) -> list[dict[str, Any]]:
    return [task for task in workspace.kubectl.list("task") if task["spec"]["agentRef"]["name"] == agent]


def wait_for_task(workspace: Workspace, agent: str) -> dict[str, Any]:
    """The only Task of this agent, as soon as there is one."""
    eventually(lambda: tasks_of(workspace, agent), SOON, what=f"a Task of agent {agent}")
    (task,) = tasks_of(workspace, agent)
    return task


def delegations_of(workspace: Workspace, task: str) -> list[dict[str, Any]]:
    return [call for call in workspace.calls_of(task) if call["spec"]["toolType"] == "DelegateToAgent"]


def patch(workspace: Workspace, kind: str, name: str, body: str) -> None:
    workspace.kubectl("patch", kind, name, "--type=merge", "-p", body)


def assert_event(workspace: Workspace, target: str, reason: str, words: str) -> None:
    def told() -> bool:
        return any(
            event.reason == reason and words in event.message
            for event in read_events(workspace.kubectl("describe", target))
        )

    eventually(told, SOON, what=f"an event {reason} about {target}")


def asked(llm: ScriptedServer) -> list[str]:
    """The digests of the requests that the LLM got."""
    return [request.digest for request in llm.requests]


def labels(log: ToolLog, event: str) -> Counter[str]:
    return Counter(task for task, _ in log.of(event))


@pytest.mark.requirement("concept-sub-agents")
def test_a_tree_of_agents_with_tools_answers_as_one(workspace: Workspace, tmp_path: Path) -> None:
    llm, log = apply_family(workspace, tmp_path)
    workspace.kubectl.apply(manifests.task("tree", tree_order("tree"), "parent"))
    assert workspace.kubectl.finish("tree")["status"]["output"] == tree_output("tree")
    assert labels(log, "end") == Counter(tree_labels("tree"))

    (call,) = delegations_of(workspace, "tree")
    (child,) = tasks_of(workspace, "child")
    assert (call["status"]["phase"], call["status"]["status"]) == ("Succeeded", "Succeeded")
    assert call["status"]["statusDetail"] == "Sub-agent completed successfully"
    assert call["status"]["result"] == child["status"]["output"]
    assert child["metadata"]["name"] == f"{call['metadata']['name']}-child"
    (owner,) = child["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("TaskRunToolCall", call["metadata"]["uid"], True)
    target = f"taskruntoolcall/{call['metadata']['name']}"
    assert_event(workspace, target, "DelegatingToSubAgent", 'Delegating to sub-agent "child"')
    assert_event(workspace, target, "SubAgentCompleted", "Sub-agent completed successfully")
    (grandchild,) = tasks_of(workspace, "grandchild")
    assert [t["spec"]["delegatedFrom"]["depth"] for t in (child, grandchild)] == [1, 2]

    asked = next(r.body for r in llm.requests if r.body["messages"][-1]["content"] == tree_order("tree"))
    (tool,) = [t["function"] for t in asked["tools"] if t["function"]["name"] == "delegate_to_agent__child"]
    assert tool["description"] == "Helps."
    assert tool["parameters"]["required"] == ["message"]
    assert workspace.kubectl.get("agent", "parent")["status"]["validSubAgents"] == [{"name": "child"}]


def test_the_parent_reads_why_its_sub_agent_failed(workspace: Workspace, tmp_path: Path) -> None:
    apply_family(workspace, tmp_path, description="The first.")
    spec = workspace.kubectl.get("agent", "child")["spec"]
    workspace.kubectl.apply(manifests.build("Agent", "child", {**spec, "maxTurns": 1}))
    eventually(
        lambda: workspace.kubectl.get("agent", "child")["status"]["observedGeneration"] == 2, SOON, what="validation"
    )
    order = write_order([delegate("child", [count("one")], [count("two")])])
    workspace.kubectl.apply(manifests.task("failing", order, "parent"))
    task = workspace.kubectl.finish("failing")
    (child,) = tasks_of(workspace, "child")
    assert reason_of(child) == "MaxTurnsExceeded"
    assert tool_messages(task) == [f"Error: {child['status']['error']}"]
    (call,) = delegations_of(workspace, "failing")
    assert (call["status"]["phase"], call["status"]["reason"]) == ("Failed", "SubAgentFailed")
    assert call["status"]["statusDetail"] == f"Sub-agent task failed: {child['status']['error']}"
    assert_event(workspace, f"taskruntoolcall/{call['metadata']['name']}", "SubAgentFailed", "limit of 1 turns")


def test_what_can_not_be_delegated_is_told_to_the_model(workspace: Workspace, tmp_path: Path) -> None:
    apply_family(workspace, tmp_path)
    wrong = ("delegate_to_agent__child", '{"task": "no message"}')
    blank = ("delegate_to_agent__child", '{"message": "  "}')
    workspace.kubectl.apply(manifests.task("wrong", write_order([wrong, blank]), "parent"))
    for read in tool_messages(workspace.kubectl.finish("wrong")):
        assert read.startswith('Error: To delegate to agent "child" the arguments have to be {"message": "..."}')
    assert tasks_of(workspace, "child") == []


def test_agents_that_delegate_to_each_other_end_at_the_limit(workspace: Workspace) -> None:
    """They become ready together, and the model at the end of the chain reads why it may not go on."""
    depth = 3
    llm = workspace.serve_llm(report)
    workspace.kubectl.apply(
        manifests.secret("openai", OPENAI_API_KEY=workspace.key),
        manifests.llm(llm.url),
        manifests.agent("ping", subAgents=[{"name": "pong"}], maxDelegationDepth=depth),
        manifests.agent("pong", subAgents=[{"name": "ping"}, {"name": "pong"}], maxDelegationDepth=depth),
    )
    for agent in ("ping", "pong"):
        workspace.kubectl.wait(f"agent/{agent}", timeout=30)
    order = write_order([delegate("pong", [delegate("ping", [delegate("pong", [delegate("ping")])])])])
    workspace.kubectl.apply(manifests.task("circle", order, "ping"))
    task = workspace.kubectl.finish("circle", timeout=30)
    sentence = (
        'Error: Agent "ping" was not asked: this would be delegation number 4 below one another, and the limit is 3'
        " (maxDelegationDepth of the agent that delegates)"
    )
    assert task["status"]["output"] == sentence  # handed up as the answer of each
    assert len(workspace.kubectl.list("task")) == 1 + depth
    calls = workspace.kubectl.list("taskruntoolcall")
    assert Counter(call["status"]["reason"] for call in calls) == {"Succeeded": depth, "DelegationTooDeep": 1}


def test_a_call_says_what_its_sub_agent_waits_for(workspace: Workspace, tmp_path: Path) -> None:
    """The child's Agent goes unready after the call was made: its Task waits, and the call says for what."""
    _, log = apply_family(workspace, tmp_path)
    order = write_order([delegate("child", [count("slow", UNTIL_OPEN)])])
    workspace.kubectl.apply(manifests.task("busy", order, "parent"))
    eventually(lambda: labels(log, "start")["slow"] == 1, SOON, what="the tool of the child")
    child = wait_for_task(workspace, "child")
    spec = workspace.kubectl.get("agent", "child")["spec"]
    workspace.kubectl("delete", "agent", "child")
    log.open()
    (call,) = delegations_of(workspace, "busy")
    name = call["metadata"]["name"]

    def shown() -> bool:
        detail = workspace.kubectl.get("taskruntoolcall", name)["status"]["statusDetail"]
        return bool(detail == "Delegating to sub-agent: Waiting for Agent to exist")

    eventually(shown, SOON, what="the child's reason in the call")
    status = workspace.kubectl.get("agent", "parent")["status"]
    assert (status["ready"], status["statusDetail"]) == (False, 'Waiting for sub-agent "child" to exist')
    workspace.kubectl.apply(manifests.build("Agent", "child", spec))
    assert workspace.kubectl.finish("busy")["status"]["output"] == "counted slow 1 0"
    assert [t["metadata"]["uid"] for t in tasks_of(workspace, "child")] == [child["metadata"]["uid"]]


def start_slow_tree(workspace: Workspace, log: ToolLog, **spec: Any) -> None:
    """Until the grandchild's tool runs, which takes a minute."""
    order = write_order([delegate("child", [delegate("grandchild", [count("slow", LONG_MS)])])])
    workspace.kubectl.apply(manifests.task("tree", order, "parent", **spec))
    eventually(lambda: labels(log, "start")["slow"] == 1, SOON, what="the tool of the grandchild")


def test_cancelling_goes_down_the_tree(workspace: Workspace, tmp_path: Path) -> None:
    _, log = apply_family(workspace, tmp_path)
    start_slow_tree(workspace, log)
    patch(workspace, "task", "tree", CANCEL)
    assert reason_of(workspace.kubectl.finish("tree", "Failed")) == "Cancelled"
    for agent in FAMILY[1:]:
        (task,) = tasks_of(workspace, agent)
        assert reason_of(workspace.kubectl.finish(task["metadata"]["name"], "Failed")) == "Cancelled"
    eventually(lambda: log.of("interrupted") == log.of("start"), SOON, what="the tool's interruption")
    (call,) = delegations_of(workspace, "tree")
    (child,) = tasks_of(workspace, "child")
    assert call["status"]["reason"] == "Cancelled"
    assert call["status"]["error"].startswith(f'The call was cancelled, and with it Task "{child["metadata"]["name"]}"')


def test_one_delegation_is_cancelled_and_its_parent_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    _, log = apply_family(workspace, tmp_path)
    start_slow_tree(workspace, log)
    (call,) = delegations_of(workspace, "tree")
    patch(workspace, "taskruntoolcall", call["metadata"]["name"], CANCEL)
    assert workspace.kubectl.finish("tree")["status"]["output"].startswith("Error: The call was cancelled, and with it")
    eventually(lambda: log.of("interrupted") == log.of("start"), SOON, what="the tool's interruption")


def test_the_deadline_of_the_parent_ends_the_tree(workspace: Workspace, tmp_path: Path) -> None:
    _, log = apply_family(workspace, tmp_path)
    start_slow_tree(workspace, log, activeDeadlineSeconds=10)
    limits = [tasks_of(workspace, agent)[0]["spec"]["activeDeadlineSeconds"] for agent in FAMILY[1:]]
    assert all(1 <= limit <= 10 for limit in limits)
    assert reason_of(workspace.kubectl.finish("tree", "Failed")) == "DeadlineExceeded"
    for agent in FAMILY[1:]:
        (task,) = tasks_of(workspace, agent)
        ended = workspace.kubectl.finish(task["metadata"]["name"], "Failed")
        assert reason_of(ended) in ("DeadlineExceeded", "Cancelled")
    eventually(lambda: log.of("interrupted") == log.of("start"), SOON, what="the tool's interruption")


@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_deleting_the_parent_leaves_nothing(workspace: Workspace, tmp_path: Path, cascade: str) -> None:
    llm, log = apply_family(workspace, tmp_path)
    workspace.kubectl.apply(manifests.task("done", tree_order("done"), "parent"))
    workspace.kubectl.finish("done")
    start_slow_tree(workspace, log)
    before = {item["metadata"]["uid"] for item in workspace.kubectl.list(OWNED)}
    made = set[str]()
    eventually(lambda: len(set(asked(llm))) == 8 + 3, SOON, what="what both trees ask their model")

    def all_gone() -> bool:
        left = workspace.kubectl.list(OWNED)
        made.update(item["metadata"]["uid"] for item in left)
        return not left

    workspace.kubectl("delete", "task", "tree", "done", f"--cascade={cascade}", "--wait=false")
    eventually(all_gone, 20.0, what="the end of the last object of both trees")
    assert made <= before, "something was made again"
    assert [c for c in workspace.kubectl.list("configmap") if c["metadata"]["name"] != "kube-root-ca.crt"] == []
    eventually(lambda: log.of("interrupted"), 15.0, what="the tool's interruption")
    assert len(asked(llm)) == 8 + 3
    assert labels(log, "start") == Counter(tree_labels("done")) + Counter(["slow"])


def test_a_sub_task_that_somebody_deletes_is_not_made_again(workspace: Workspace, tmp_path: Path) -> None:
    _, log = apply_family(workspace, tmp_path)
    start_slow_tree(workspace, log)
    workspace.kubectl("delete", "task", wait_for_task(workspace, "child")["metadata"]["name"])
    task = workspace.kubectl.finish("tree")
    assert task["status"]["output"] == (
        'Error: The Task of sub-agent "child" was deleted before it ended: what it had done by then stays'
    )
    assert tasks_of(workspace, "child") == []
    assert len(log.of("start")) == 1


def test_a_delegation_that_somebody_deletes_is_not_done_again(workspace: Workspace, tmp_path: Path) -> None:
    """The call is made again under its name; what came of the first one nobody knows, and the model is told."""
    _, log = apply_family(workspace, tmp_path)
    start_slow_tree(workspace, log)
    (call,) = delegations_of(workspace, "tree")
    workspace.kubectl("delete", "taskruntoolcall", call["metadata"]["name"])
    task = workspace.kubectl.finish("tree")
    assert task["status"]["output"] == (
        'Error: A call of this name was delegated to sub-agent "child" before: what came of it is unknown'
    )
    (again,) = delegations_of(workspace, "tree")
    assert again["status"]["reason"] == "OutcomeUnknown"
    eventually(lambda: log.of("interrupted") == log.of("start"), 15.0, what="the tool's interruption")
    assert len(log.of("start")) == 1


def test_equal_names_in_two_namespaces_never_meet(new_workspace: Callable[[], Workspace], tmp_path: Path) -> None:
    left, right = new_workspace(), new_workspace()
    logs = {workspace: apply_family(workspace, tmp_path)[1] for workspace in (left, right)}
    for workspace in logs:
        workspace.kubectl.apply(manifests.task("tree", tree_order(workspace.namespace), "parent"))
    for workspace, log in logs.items():
        assert workspace.kubectl.finish("tree")["status"]["output"] == tree_output(workspace.namespace)
        assert labels(log, "start") == Counter(tree_labels(workspace.namespace))


def test_an_approval_in_the_middle_of_the_tree_survives_every_death(
    workspace: Workspace, servers: BackgroundLoop, tmp_path: Path
) -> None:
    """human-bridge dies between asking and hearing that it has asked, then all at once while the person thinks."""
    humanlayer = HumanLayer()
    llm, log = apply_family(workspace, tmp_path)
    channel = {
        "type": "email",
        "apiKeyFrom": {"secretKeyRef": {"name": "humanlayer", "key": "KEY"}},
        "humanLayer": {"baseUrl": servers.serve(humanlayer.build_app())},
        "email": {"address": "approver@example.com"},
    }
    workspace.kubectl.apply(
        manifests.secret("humanlayer", KEY=HUMANLAYER_KEY),
        manifests.build("ContactChannel", "approvers", channel),
        manifests.own_server(
            "guarded", "counting_server.py", str(log.path), approvalContactChannel={"name": "approvers"}
        ),
        manifests.agent("child", servers=["counting", "guarded"], subAgents=[{"name": "grandchild"}]),
    )
    eventually(
        lambda: len(workspace.kubectl.get("agent", "child")["status"].get("validMCPServers", [])) == 2,
        SOON,
        what="the child's new server",
    )
    guarded = ("guarded__count", count("approved")[1])
    child = [delegate("grandchild", [count("grandchild-a")], [count("grandchild-b")]), count("child-a")]
    order = write_order(
        [count("parent-a"), delegate("child", child, [guarded, count("child-b")], [count("child-c")])],
        [count("parent-b")],
    )
    servers.run(hold(humanlayer))
    workspace.kubectl.apply(manifests.task("asking", order, "parent"))
    (asked_once,) = eventually(humanlayer.posts, 20.0, what="the request to the person")
    workspace.kill("human-bridge")
    servers.run(release(humanlayer))

    def waiting() -> dict[str, Any] | None:
        calls = workspace.kubectl.list("taskruntoolcall")
        return next((c for c in calls if c["status"].get("status") == "AwaitingHumanApproval" and is_asked(c)), None)

    call = eventually(waiting, 20.0, what="a call that waits for a person who has been asked")
    assert call is not None
    assert call["status"]["externalCallID"] == asked_once.body["call_id"]
    dead = {service: workspace.cluster.kill_again(service) for service in (*SERVICES, "nats")}
    assert "approved" not in labels(log, "start")
    humanlayer.approve(asked_once.body["call_id"])
    for service in ("human-bridge", "toolcall-controller"):
        workspace.cluster.kill_again(service, dead[service])
    output = workspace.kubectl.finish("asking", timeout=40)["status"]["output"]
    done = ["parent-a", "grandchild-a", "grandchild-b", "child-a", "approved", "child-b", "child-c", "parent-b"]
    assert output == " + ".join(f"counted {label} 1 0" for label in done)
    assert labels(log, "start") == labels(log, "end") == Counter(done)
    assert len(humanlayer.posts()) == 1
    assert len(workspace.kubectl.list("task")) == len(FAMILY)
    assert len(asked(llm)) == len(set(asked(llm))) == 3 + 4 + 3, "an answer was paid for twice"


async def hold(humanlayer: HumanLayer) -> None:
    humanlayer.hold_replies()


async def release(humanlayer: HumanLayer) -> None:
    humanlayer.release_replies()


def is_asked(call: dict[str, Any]) -> bool:
    return any(c["type"] == "HumanAsked" and c["status"] == "True" for c in call["status"].get("conditions", []))


@pytest.mark.parametrize("service", ["task-controller", "toolcall-controller", "nats"])
@pytest.mark.parametrize("moment", [1, 3, 5])
def test_a_process_dies_in_the_middle_of_trees(workspace: Workspace, tmp_path: Path, service: str, moment: int) -> None:
    """Killed when a part of the tools has run: while parents delegate, while children do, and on the way back."""
    llm, log = apply_family(workspace, tmp_path)
    names = [f"tree-{number}" for number in range(TREES)]
    pid = int(workspace.cluster.process(service)["pid"])
    workspace.kubectl.apply(*(manifests.task(name, tree_order(name, 100), "parent") for name in names))
    eventually(lambda: len(log.of("start")) >= moment * TREES, SOON, what=f"the moment to end {service}", interval=0.01)
    os.kill(pid, signal.SIGKILL)
    workspace.cluster.wait_restarted(service, pid)
    for name in names:
        assert workspace.kubectl.finish(name, timeout=30)["status"]["output"] == tree_output(name)
    wanted = Counter(label for name in names for label in tree_labels(name))
    assert labels(log, "start") == labels(log, "end") == wanted
    assert len(workspace.kubectl.list("task")) == TREES * len(FAMILY)
    assert len(asked(llm)) == len(set(asked(llm))) == TREES * 8, "an answer was paid for twice"


def test_one_trace_shows_the_whole_tree(workspace: Workspace, tmp_path: Path, spans: SpanStore) -> None:
    if not workspace.cluster.traces:
        pytest.skip("a cluster that was started elsewhere (KUBECHAIN_TEST_STATE_DIR) exports its spans elsewhere")
    apply_family(workspace, tmp_path)
    workspace.kubectl.apply(manifests.task("tree", tree_order("tree"), "parent"))
    context = workspace.kubectl.finish("tree")["status"]["spanContext"]

    def exported() -> dict[str, SpanSeen]:
        seen = spans.of_trace(context["traceID"])
        names = Counter(span.name for span in seen)
        for agent in FAMILY:
            assert names[f"invoke_agent {agent}"] == 1, names
        assert names["execute_tool count"] == len(tree_labels("tree")), names
        for agent in FAMILY[1:]:
            assert names[f"execute_tool delegate_to_agent__{agent}"] == 1, names
        known = {span.span for span in seen}
        assert [span.name for span in seen if span.parent and span.parent not in known] == []
        return {span.name: span for span in seen}

    seen = eventually(exported, SOON, what=f"all spans of trace {context['traceID']}")
    assert (seen["invoke_agent parent"].span, seen["invoke_agent parent"].parent) == (context["spanID"], "")
    for above, agent in pairwise(FAMILY):
        call = seen[f"execute_tool delegate_to_agent__{agent}"]
        assert call.parent == seen[f"invoke_agent {above}"].span
        assert call.service == "kubechain-toolcall-controller"
        assert seen[f"invoke_agent {agent}"].parent == call.span
