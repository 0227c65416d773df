"""What a call hands down to the Task of a sub-agent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kubechain_common.api.v1alpha1.conversation import MessageToolCall
from kubechain_common.api.v1alpha1.taskruntoolcall import Delegation
from kubechain_common.testing.builders import NOW, build_agent, build_mcp_server, build_task
from kubechain_task_controller.core.tool_calls import build_tool_call
from kubechain_task_controller.core.tool_catalog import build_catalog

STARTED = {"startTime": NOW.isoformat()}


def hand_down(tool: str = "delegate_to_agent__helper", agent: dict[str, Any] | None = None, **task: Any) -> Any:
    mine = build_agent(mcpServers=[{"name": "fetch"}], subAgents=[{"name": "helper"}], **(agent or {}))
    catalog = build_catalog(mine, {"fetch": build_mcp_server()}, {}, {"helper": build_agent("helper")})
    call = MessageToolCall.model_validate({"id": "1", "type": "function", "function": {"name": tool, "arguments": ""}})
    return build_tool_call(build_task(status=STARTED, **task), "name", call, catalog, NOW, mine).spec.delegation


def test_only_a_delegation_hands_down() -> None:
    assert hand_down("fetch__fetch") is None
    assert hand_down("nope") is None


def test_the_first_delegation_has_the_default_limit() -> None:
    assert hand_down() == Delegation(depth=1, max_depth=5)


@pytest.mark.parametrize("limit", [0, 1, 32])
def test_an_agent_has_a_limit_of_its_own(limit: int) -> None:
    assert hand_down(agent={"maxDelegationDepth": limit}).max_depth == limit


def test_a_sub_agent_delegates_one_deeper() -> None:
    assert hand_down(delegatedFrom={"toolCallRef": {"name": "c"}, "depth": 3}).depth == 4


def test_the_end_of_the_task_is_the_deadline() -> None:
    assert hand_down(activeDeadlineSeconds=60).deadline == NOW + timedelta(seconds=60)
    assert hand_down(activeDeadlineSeconds=2**63 - 1).deadline is None
