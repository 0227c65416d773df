from __future__ import annotations

import json
from typing import Any

import pytest

from kubechain_common.api.nesting import MAX_NESTING, is_deep
from kubechain_common.api.v1alpha1 import Agent, MCPServer, Task
from kubechain_common.api.v1alpha1.conversation import Message


def nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


@pytest.mark.parametrize(("value", "deep"), [(None, False), ({}, False), ({"a": nested(1)}, False), (nested(3), True)])
def test_levels_are_counted_over_objects_and_lists(value: Any, deep: bool) -> None:
    assert is_deep(value, 2) is deep


def test_breadth_is_no_depth() -> None:
    assert not is_deep([{"a": [1]} for _ in range(1000)], 3)


def test_what_may_be_used_is_read_as_it_is() -> None:
    data = {"x": nested(MAX_NESTING - 1)}
    assert Message(role="user", provider_data=data).provider_data == data


@pytest.mark.parametrize("levels", [150, 195, 250, 300, 900])
def test_objects_of_any_depth_can_be_read_written_and_read_again_and_are_still_too_deep(levels: int) -> None:
    deep = {"x": nested(levels)}
    meta = {"namespace": "ns", "name": "n", "uid": "u"}
    task = Task.model_validate(
        {
            "metadata": meta,
            "spec": {
                "agentRef": {"name": "a"},
                "contextWindow": [{"role": "user", "content": "c", "providerData": deep}],
            },
            "status": {"contextWindow": [{"role": "assistant", "content": "c", "providerData": deep}]},
        }
    )
    form = {"type": "JSONSchema", "jsonSchema": deep}
    agent = Agent.model_validate(
        {"metadata": meta, "spec": {"llmRef": {"name": "l"}, "system": "s", "responseFormat": form}}
    )
    server = MCPServer.model_validate(
        {
            "metadata": meta,
            "spec": {"transport": "stdio", "command": "c"},
            "status": {"tools": [{"name": "t", "inputSchema": deep}]},
        }
    )
    for obj in (task, agent, server):
        assert type(obj).model_validate_json(obj.model_dump_json(by_alias=True)) == obj
    window = task.spec.context_window
    assert window is not None
    assert agent.spec.response_format is not None
    for value in (
        window[0].provider_data,
        task.status.context_window[0].provider_data,
        agent.spec.response_format.json_schema,
        server.status.tools[0].input_schema,
    ):
        assert is_deep(value)
