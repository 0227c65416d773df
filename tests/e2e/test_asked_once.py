"""human-bridge and toolcall-controller die while people are asked: each person is asked once, each call runs once.

The witnesses are HumanLayer's side of the API and the MCP server's own log.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.humanlayer import API_KEY, HumanLayer
from tests.e2e.support.workspace import Workspace

from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

TASKS = 12
ORDER = {"turns": 1, "parallel": 1, "ms": 0, "llm_ms": 0}
FINISH_SECONDS = 60.0


def test_everybody_is_asked_once_and_every_approved_call_runs_once(
    workspace: Workspace, servers: BackgroundLoop, tmp_path: Path
) -> None:
    humanlayer = HumanLayer()
    url = servers.serve(humanlayer.build_app())
    channel = {
        "type": "email",
        "apiKeyFrom": {"secretKeyRef": {"name": "humanlayer", "key": "KEY"}},
        "humanLayer": {"baseUrl": url},
        "email": {"address": "approver@example.com"},
    }
    workspace.kubectl.apply(
        manifests.secret("humanlayer", KEY=API_KEY), manifests.build("ContactChannel", "approvals", channel)
    )
    workspace.kubectl.wait("contactchannel/approvals", timeout=30)
    log = workspace.apply_counting_agent(tmp_path, approvalContactChannel={"name": "approvals"})
    names = [f"task-{n:02d}" for n in range(TASKS)]
    orders = [manifests.task(name, json.dumps(ORDER | {"task": name})) for name in names]

    workspace.kubectl.apply(*orders[: TASKS // 2])
    eventually(lambda: humanlayer.posts(), 20, what="the first request")
    workspace.kill("human-bridge")
    workspace.kubectl.apply(*orders[TASKS // 2 :])
    workspace.kill("toolcall-controller")
    workspace.kill("human-bridge")
    eventually(lambda: len(humanlayer.function_calls) == TASKS, 40, what="a request for each Task")
    assert log.of("start") == []

    approved = rejected = 0
    for number, call_id in enumerate(list(humanlayer.function_calls)):
        if number % 2:
            humanlayer.reject(call_id, "Not today")
            rejected += 1
        else:
            humanlayer.approve(call_id)
            approved += 1
    workspace.kill("human-bridge")
    tasks = [workspace.kubectl.finish(name, timeout=FINISH_SECONDS) for name in names]
    assert {task["status"]["phase"] for task in tasks} == {"FinalAnswer"}

    created = Counter(seen.body["call_id"] for seen in humanlayer.posts())
    assert created == dict.fromkeys(humanlayer.function_calls, 1)
    assert sorted(log.of("start")) == sorted(set(log.of("start")))
    assert len(log.of("start")) == approved
    phases = Counter(_only_call(workspace, name)["status"]["phase"] for name in names)
    assert phases == {"Succeeded": approved, "ToolCallRejected": rejected}


def _only_call(workspace: Workspace, task: str) -> dict[str, Any]:
    (call,) = workspace.calls_of(task)
    return call
