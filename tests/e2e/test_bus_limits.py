"""What the message bus can not carry or store ends, or waits, with a sentence in the object that it belongs to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.workspace import Workspace, reason_of, tool_messages

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.state import read_running_state
from kubechain_common.messages.topology import (
    ANY,
    LLM_REQUESTS,
    LLM_RESULTS,
    TOOL_REQUESTS,
    TOOL_RESULTS,
    llm_request_subject,
    llm_result_subject,
    tool_request_subject,
    tool_result_subject,
)
from kubechain_common.messaging import Bus
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

SOON = 15.0
POISON = {"garbage": b"\xff\x00 no json", "version": b'{"v": 99}', "shape": b'[{"not": "a message"}]'}
"""Not JSON; of a version that nobody knows; JSON of another shape."""


def with_bus(workspace: Workspace, act: Callable[[Bus], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        state = read_running_state(Layout.at(workspace.cluster.state_dir))
        assert state is not None
        async with Bus.connect(state.nats_url, "tests") as bus:
            return await act(bus)

    return asyncio.run(run())


def find_request(workspace: Workspace, pattern: str) -> str:
    """The subject of the one request of this pattern."""
    (subject,) = with_bus(workspace, lambda bus: bus.find_subjects(LLM_REQUESTS.name, pattern))
    return str(subject)


def withdraw(workspace: Workspace, stream: str, subject: str) -> None:
    with_bus(workspace, lambda bus: bus.withdraw(stream, subject))


def poison(workspace: Workspace, stream: str, subjects: dict[str, str]) -> None:
    """Put each kind of poison on its subject, and wait until the stream is rid of all of it."""

    async def publish(bus: Bus) -> None:
        for kind, subject in subjects.items():
            await bus.connection.js.publish(subject, POISON[kind])

    async def is_gone(bus: Bus) -> bool:
        return not any([await bus.has_message(stream, subject) for subject in subjects.values()])

    with_bus(workspace, publish)
    eventually(lambda: with_bus(workspace, is_gone), SOON, what="the end of the poison")


@pytest.mark.parametrize("stream", [LLM_REQUESTS.name, LLM_RESULTS.name])
def test_poison_between_task_and_llm_fails_the_task_with_a_sentence(workspace: Workspace, stream: str) -> None:
    llm = workspace.hang_llm()
    workspace.apply_agent(llm)
    workspace.kubectl.apply(*(manifests.task(kind, "hello") for kind in POISON))
    eventually(lambda: llm.asked == len(POISON), SOON, what="the requests at the LLM")
    llm_uid = workspace.kubectl.get("llm", "gpt-4o")["metadata"]["uid"]
    uids = {kind: workspace.kubectl.get("task", kind)["metadata"]["uid"] for kind in POISON}
    requests = {
        kind: find_request(workspace, llm_request_subject(llm_uid, workspace.namespace, uid, 1, ANY))
        for kind, uid in uids.items()
    }
    if stream == LLM_REQUESTS.name:
        subjects = requests
        words = "llm-gateway cannot read the request"
        for subject in subjects.values():  # the real ones would never leave
            withdraw(workspace, LLM_REQUESTS.name, subject)
    else:
        subjects = {
            kind: llm_result_subject(workspace.namespace, uid, 1, requests[kind].rpartition(".")[2])
            for kind, uid in uids.items()
        }
        words = "can not be read"
    poison(workspace, stream, subjects)
    for kind in POISON:
        task = workspace.kubectl.finish(kind, "Failed")
        assert reason_of(task) == "LLMRequestFailed"
        assert words in task["status"]["error"]


@pytest.mark.parametrize("stream", [TOOL_REQUESTS.name, TOOL_RESULTS.name])
def test_poison_between_call_and_tool_fails_the_call_and_the_llm_reads_it(
    workspace: Workspace, tmp_path: Path, stream: str
) -> None:
    log = workspace.apply_counting_agent(tmp_path)
    order = {"task": "poisoned", "turns": 1, "parallel": len(POISON), "ms": 60_000, "llm_ms": 0}
    workspace.kubectl.apply(manifests.task("poisoned", json.dumps(order)))
    eventually(lambda: len(log.of("start")) == len(POISON), SOON, what="the calls at the tool")
    server_uid = workspace.kubectl.get("mcpserver", "counting")["metadata"]["uid"]
    uids = [call["metadata"]["uid"] for call in workspace.calls_of("poisoned")]
    if stream == TOOL_REQUESTS.name:
        subjects = [tool_request_subject(server_uid, workspace.namespace, uid) for uid in uids]
        words = "mcp-host can not read the request of this call"
        for subject in subjects:
            withdraw(workspace, TOOL_REQUESTS.name, subject)
    else:
        subjects = [tool_result_subject(workspace.namespace, uid) for uid in uids]
        words = "The tool ran, but its result can not be read"
    poison(workspace, stream, dict(zip(POISON, subjects, strict=True)))
    task = workspace.kubectl.finish("poisoned")
    assert len(tool_messages(task)) == len(POISON)
    assert all(words in message for message in tool_messages(task))


@contextmanager
def full(workspace: Workspace, stream: str) -> Iterator[None]:
    """The stream takes nothing in the meantime."""

    async def limit(bus: Bus, size: int) -> None:
        config = (await bus.connection.js.stream_info(stream)).config
        config.max_bytes = size
        await bus.connection.js.update_stream(config)

    with_bus(workspace, lambda bus: limit(bus, 1))
    try:
        yield
    finally:
        with_bus(workspace, lambda bus: limit(bus, -1))


def bus_warnings(workspace: Workspace, kind: str) -> int:
    """How often it was told that the bus is full."""
    events = workspace.kubectl.list("events", "--field-selector", f"involvedObject.kind={kind},reason=MessageBusFull")
    return sum(event.get("count") or 1 for event in events)


def test_a_task_waits_for_a_full_stream_and_says_so_once(workspace: Workspace, tmp_path: Path) -> None:
    workspace.apply_counting_agent(tmp_path)
    order = {"task": "patient", "turns": 1, "parallel": 1, "ms": 0, "llm_ms": 0}
    with full(workspace, TOOL_REQUESTS.name):
        with full(workspace, LLM_REQUESTS.name):
            workspace.kubectl.apply(manifests.task("patient", json.dumps(order)))
            eventually(lambda: bus_warnings(workspace, "Task") == 1, SOON, what="a warning about the Task")
            detail = workspace.kubectl.get("task", "patient")["status"]["statusDetail"]
            assert detail.startswith("Message bus: NATS has no room for publishing kubechain.llm.request.")
            assert "maximum bytes exceeded" in detail
        eventually(lambda: bus_warnings(workspace, "TaskRunToolCall") == 1, SOON, what="a warning about the call")
        (call,) = workspace.calls_of("patient")
        assert "maximum bytes exceeded" in call["status"]["statusDetail"]
    task = workspace.kubectl.finish("patient")
    assert task["status"]["output"] == "done after 1 turns"
    assert bus_warnings(workspace, "Task") == 1
    assert bus_warnings(workspace, "TaskRunToolCall") == 1
