from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.api.v1alpha1.task import TaskStatus
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import InvalidError
from kubechain_common.kube.informer import Informer
from kubechain_common.kube.status_writer import build_wire, is_changed, write_status

Json = dict[str, Any]

STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Pending", "FinalAnswer"]),
        "ready": st.booleans(),
        "turn": st.integers(0, 9),
        "output": st.text(max_size=3),
        "startTime": st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
        "tokenUsage": st.fixed_dictionaries({}, optional={"inputTokens": st.integers(0, 9)}),
        "contextWindow": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text(max_size=2)})),
    },
)


def read(**wire: Any) -> TaskStatus:
    """A status as it comes from the API server."""
    return TaskStatus.model_validate(wire)


def test_the_status_is_sent_as_a_whole() -> None:
    window = [{"role": "user", "content": "hi"}]
    old = read(phase="Pending", turn=1, contextWindow=window)
    new = old.model_copy(update={"turn": 2, "output": "done"})
    assert is_changed(old, new)
    assert build_wire(new) == {"phase": "Pending", "turn": 2, "output": "done", "contextWindow": window}


def test_an_equal_status_is_no_change() -> None:
    old = read(phase="Pending", turn=1, contextWindow=[{"role": "user", "content": "hi"}])
    assert not is_changed(old, old.model_copy())
    assert not is_changed(old, old.model_copy(deep=True))


def test_a_removed_field_is_not_sent() -> None:
    old = read(phase="Pending", completionTime="2026-01-01T00:00:00Z")
    new = old.model_copy(update={"completion_time": None})
    assert is_changed(old, new)
    assert build_wire(new) == {"phase": "Pending"}


def test_what_a_newer_release_has_written_is_sent_back() -> None:
    old = read(phase="Pending", quota={"left": [3]}, deferred=None)
    new = old.model_copy(update={"turn": 2})
    assert is_changed(old, new)
    assert not is_changed(old, old.model_copy(deep=True))
    assert build_wire(new) == {"phase": "Pending", "turn": 2, "quota": {"left": [3]}}


def test_a_default_is_written_when_it_was_set_on_purpose() -> None:
    new = TaskStatus(ready=False, status="Pending")
    assert is_changed(read(), new)
    assert build_wire(new) == {"ready": False, "status": "Pending"}
    assert not is_changed(read(ready=False), TaskStatus(ready=False))


def test_a_change_inside_a_field_is_one() -> None:
    old = read(tokenUsage={"inputTokens": 1, "outputTokens": 2})
    new = old.model_copy(update={"token_usage": TokenUsage.model_validate({"inputTokens": 5})})
    assert is_changed(old, new)
    assert build_wire(new) == {"tokenUsage": TokenUsage(input_tokens=5).to_wire()}


def test_a_time_that_differs_by_less_than_the_wire_shows_is_no_change() -> None:
    old = read(startTime="2026-01-01T00:00:00Z")
    assert not is_changed(old, old.model_copy(update={"start_time": datetime(2026, 1, 1, 0, 0, 0, 123, tzinfo=UTC)}))


def test_defaults_inside_a_message_reach_the_wire() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    message = Message.model_validate({"role": "assistant", "content": "", "toolCalls": [call]})
    assert build_wire(TaskStatus(context_window=[message])) == {"contextWindow": [message.to_wire()]}


@given(wire=STATUSES, changes=STATUSES)
def test_what_is_sent_reads_as_what_was_meant(wire: Json, changes: Json) -> None:
    old, update = read(**wire), read(**changes)
    new = old.model_copy(update={field: getattr(update, field) for field in update.model_fields_set})
    sent = read(**build_wire(new)) if is_changed(old, new) else old
    assert sent.to_wire() == new.to_wire()
    assert not is_changed(sent, new)


class _NoClient:
    """A client that must not be asked."""


async def test_nothing_is_sent_when_nothing_differs() -> None:
    task = Task.model_validate({"spec": {"agentRef": {"name": "x"}, "userMessage": "m"}, "status": {"turn": 1}})
    client = cast("KubeClient", _NoClient())
    async with asyncio.timeout(1):
        assert await write_status(client, Informer(client, Task), task, task.status.model_copy()) is task


async def test_what_is_kept_in_part_is_not_written_back() -> None:
    task = Task.model_validate({"spec": {"agentRef": {"name": "x"}, "userMessage": "m"}, "status": {"output": "long"}})
    client = cast("KubeClient", _NoClient())
    informer = Informer(client, Task, transform=lambda task: task.model_copy())
    with pytest.raises(InvalidError, match="kept in part"):
        await write_status(client, informer, task, task.status.model_copy(update={"turn": 2}))
