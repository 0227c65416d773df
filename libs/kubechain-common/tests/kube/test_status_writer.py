from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.api.v1alpha1.task import TaskStatus
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Informer
from kubechain_common.kube.status_writer import build_status_patch, merge_diff, write_status

Json = dict[str, Any]


def merge(target: Json, patch: Json) -> Json:
    """RFC 7386, spelled out."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            before = merged.get(key)
            merged[key] = merge(before if isinstance(before, dict) else {}, value)
        else:
            merged[key] = value
    return merged


VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans() | st.lists(st.integers(), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@given(old=OBJECTS, new=OBJECTS)
def test_the_patch_turns_the_old_into_the_new_and_is_empty_when_they_are_equal(old: Json, new: Json) -> None:
    patch = merge_diff(old, new)
    assert merge(old, patch) == new
    assert not merge_diff(new, new)


def read(**wire: Any) -> TaskStatus:
    """A status as it comes from the API server."""
    return TaskStatus.model_validate(wire)


def test_only_what_changed_is_in_the_patch() -> None:
    old = read(phase="Pending", turn=1, contextWindow=[{"role": "user", "content": "hi"}])
    new = old.model_copy(update={"turn": 2, "output": "done"})
    assert build_status_patch(old, new) == {"turn": 2, "output": "done"}


def test_an_equal_status_needs_no_patch() -> None:
    old = read(phase="Pending", turn=1, contextWindow=[{"role": "user", "content": "hi"}])
    assert build_status_patch(old, old.model_copy()) == {}
    assert build_status_patch(old, old.model_copy(deep=True)) == {}


def test_a_removed_field_becomes_null() -> None:
    old = read(phase="Pending", completionTime="2026-01-01T00:00:00Z")
    assert build_status_patch(old, old.model_copy(update={"completion_time": None})) == {"completionTime": None}


def test_a_default_is_written_when_it_was_set_on_purpose() -> None:
    assert build_status_patch(read(), TaskStatus(ready=False, status="Pending")) == {
        "ready": False,
        "status": "Pending",
    }
    assert build_status_patch(read(ready=False), TaskStatus(ready=False)) == {}


def test_a_nested_field_that_went_is_removed_where_it_is() -> None:
    old = read(tokenUsage={"inputTokens": 1, "outputTokens": 2})
    patch = build_status_patch(
        old, old.model_copy(update={"token_usage": TokenUsage.model_validate({"inputTokens": 5})})
    )
    assert merge(old.to_wire(), patch) == {**old.to_wire(), "tokenUsage": TokenUsage(input_tokens=5).to_wire()}


def test_a_time_that_differs_by_less_than_the_wire_shows_is_no_change() -> None:
    old = read(startTime="2026-01-01T00:00:00Z")
    new = old.model_copy(update={"start_time": datetime(2026, 1, 1, 0, 0, 0, 123, tzinfo=UTC)})
    assert build_status_patch(old, new) == {}


def test_defaults_inside_a_message_reach_the_wire() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    message = Message.model_validate({"role": "assistant", "content": "", "toolCalls": [call]})
    patch = build_status_patch(read(), TaskStatus(context_window=[message]))
    assert patch == {"contextWindow": [message.to_wire()]}


class _NoClient:
    """A client that must not be asked."""


async def test_nothing_is_sent_when_nothing_differs() -> None:
    task = Task.model_validate({"spec": {"agentRef": {"name": "x"}, "userMessage": "m"}, "status": {"turn": 1}})
    client = cast("KubeClient", _NoClient())
    async with asyncio.timeout(1):
        assert await write_status(client, Informer(client, Task), task, task.status.model_copy()) is task
