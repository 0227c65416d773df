"""Two namespaces with objects of the same names never see each other: not their tools, not their secrets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.workspace import Workspace, tool_messages

from kubechain_cli.scripted_llm import SCRIPTS, fingerprint

pytestmark = pytest.mark.e2e

TASKS = 6
WHOAMI = json.dumps({"turns": 2, "tool": "tenant__whoami", "arguments": {}, "parallel": 2})


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
