"""What is kept of what is watched, and who is woken by whom."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.testing.builders import build_call, build_contact_channel, build_mcp_server
from kubechain_toolcall_controller.watched import Watched

NAMED = {"name": "approval-channel"}
WAITING = {"phase": "Pending", "status": "AwaitingHumanApproval"}


def watched() -> tuple[Watched, list[str]]:
    """The names that are woken; empty after each look."""
    woken: list[str] = []
    found = Watched.build(cast("Any", None), "")
    found.wake_calls(lambda key: woken.append(key[1]))
    return found, woken


def newer(obj: Any, version: str = "2", **metadata: Any) -> Any:
    return obj.model_copy(
        update={"metadata": obj.metadata.model_copy(update={"resource_version": version, **metadata})}
    )


def elsewhere(obj: Resource) -> Any:
    return obj.model_copy(update={"metadata": obj.metadata.model_copy(update={"namespace": "other"})})


def question(**more: Any) -> TaskRunToolCall:
    return build_call("question", toolType="HumanContact", target=NAMED, **more)


def fill(found: Watched, *objects: MCPServer | TaskRunToolCall | ContactChannel) -> None:
    for obj in objects:
        match obj:
            case MCPServer():
                found.servers.observe(obj)
            case TaskRunToolCall():
                found.calls.observe(obj)
            case _:
                found.channels.observe(obj)


def test_a_channel_wakes_the_calls_that_wait_for_it() -> None:
    found, woken = watched()
    fill(
        found,
        build_mcp_server(approvalContactChannel=NAMED),
        build_mcp_server("free"),
        build_call("waiting", status=WAITING),
        build_call("running", status={"phase": "Running", "status": "Ready"}),
        build_call("of-another-server", status=WAITING, target={"name": "free", "tool": "fetch"}),
        build_call("over", status={"phase": "Succeeded", "status": "Succeeded"}),
        question(),
        elsewhere(build_call("namesake", status=WAITING)),
        elsewhere(question()),
    )
    woken.clear()
    found.channels.observe(build_contact_channel())
    assert sorted(woken) == ["question", "waiting"]
    woken.clear()
    found.channels.observe(newer(build_contact_channel(timeoutSeconds=5), generation=2))
    assert sorted(woken) == ["question", "waiting"]


def test_what_human_bridge_writes_about_a_channel_wakes_nobody() -> None:
    found, woken = watched()
    fill(found, build_contact_channel(ready=False), question())
    woken.clear()
    found.channels.observe(newer(build_contact_channel()))
    assert woken == []


def test_the_channel_of_a_call_is_that_of_its_server_or_its_own_target() -> None:
    found, _ = watched()
    guarded, channel = build_mcp_server(approvalContactChannel=NAMED), build_contact_channel()
    fill(found, guarded, channel)
    assert found.channel_of(build_call(), found.server_of(build_call())) == channel
    assert found.channel_of(question(), None) == channel
    assert found.server_of(question()) is None
    assert found.channel_of(build_call(), build_mcp_server("free")) is None
    assert found.channel_of(elsewhere(question()), None) is None
    assert found.channel_of(elsewhere(build_call()), elsewhere(guarded)) is None


@pytest.mark.parametrize("approval", [None, {"tools": ["fetch"]}, {"skipReadOnly": False}])
def test_tools_that_the_policy_does_not_look_at_are_not_kept(approval: Any) -> None:
    found, _ = watched()
    fill(found, build_mcp_server(approvalContactChannel=NAMED, **({"approval": approval} if approval else {})))
    kept = found.servers.get("default", "fetch")
    assert kept is not None
    assert kept.status.tools == []


def test_of_tools_that_may_be_read_only_the_annotations_are_kept() -> None:
    found, _ = watched()
    server = build_mcp_server(approvalContactChannel=NAMED, approval={"skipReadOnly": True}).to_wire()
    server["status"]["tools"][0]["annotations"] = {"readOnlyHint": True}
    fill(found, MCPServer.model_validate(server))
    kept = found.servers.get("default", "fetch")
    assert kept is not None
    assert [tool.to_wire() for tool in kept.status.tools] == [{"name": "fetch", "annotations": {"readOnlyHint": True}}]


def test_a_finished_call_is_kept_without_its_texts() -> None:
    found, _ = watched()
    over = {"phase": "ToolCallRejected", "status": "Succeeded", "result": "no"}
    fill(found, build_call("over", status=over, decision={"approved": False, "comment": "no"}))
    kept = found.calls.get("default", "over")
    assert kept is not None
    assert (kept.spec.decision, kept.spec.arguments, kept.status.result) == (None, "", "")
    assert kept.finished
