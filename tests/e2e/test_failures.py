"""What goes wrong in use is told in a sentence where its user looks, heals by itself, and never gives a secret away."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.failures import assert_told
from tests.e2e.support.scripts import calls, in_turns
from tests.e2e.support.witness import Witness
from tests.e2e.support.workspace import Workspace, tool_messages

from kubechain_cli.scripted_llm import SCRIPTS, Reply

pytestmark = pytest.mark.e2e

DONE = Reply("done")


@pytest.mark.failure("key-refused")
def test_a_wrong_key_is_told_and_heals_with_the_secret(workspace: Workspace, witness: Witness) -> None:
    kubectl, wrong = workspace.kubectl, workspace.new_secret("sk-wrong")
    llm = workspace.serve_llm(SCRIPTS["tutorial"], require_key=workspace.key)
    kubectl.apply(
        manifests.secret("openai", OPENAI_API_KEY=wrong),
        manifests.llm(llm.url),
        manifests.agent(),
        manifests.task("early", "What is the capital of the moon?"),
    )
    kubectl.wait("llm/gpt-4o", "jsonpath={.status.status}=Error")
    status = kubectl.get("llm", "gpt-4o")["status"]
    assert status["ready"] is False
    assert status["statusDetail"] == "OpenAI refused the API key (401: Incorrect API key provided.)"
    kubectl.wait("task/early", "jsonpath={.status.phase}=Pending")
    assert_told("key-refused", witness, "gpt-4o", "early")
    kubectl("patch", "secret", "openai", "-p", json.dumps({"stringData": {"OPENAI_API_KEY": workspace.key}}))
    kubectl.wait("llm/gpt-4o")
    assert kubectl.finish("early")["status"]["phase"] == "FinalAnswer"


@pytest.fixture
def tenant(workspace: Workspace) -> Workspace:
    """A workspace with the MCPServer ``tenant``, whose token is in a Secret."""
    workspace.kubectl.apply(
        manifests.secret("tenant", token=workspace.new_secret("tenant")),
        manifests.own_server(
            "tenant", "tenant_server.py", env=[manifests.from_secret("TENANT_TOKEN", "tenant", "token")]
        ),
    )
    return workspace


def test_a_server_that_dies_is_told_with_its_last_words(workspace: Workspace) -> None:
    environment = [manifests.from_secret("TENANT_TOKEN", "tenant", "token")]
    workspace.kubectl.apply(
        manifests.secret("tenant", token=workspace.new_secret("tenant")),
        manifests.own_server("dying", "tenant_server.py", "fail", env=environment),
        manifests.stdio_server("missing", "no-such-command-anywhere"),
    )
    for name, words in (("dying", "cannot log in with ***"), ("missing", '"no-such-command-anywhere"')):
        workspace.kubectl.wait(f"mcpserver/{name}", "jsonpath={.status.status}=Error")
        status = workspace.kubectl.get("mcpserver", name)["status"]
        assert words in status["statusDetail"]
        assert status.get("connected", False) is False


def test_a_stdio_server_gets_no_credentials_of_ours(tenant: Workspace) -> None:
    tenant.apply_agent(tenant.serve_llm(in_turns(calls(("tenant__list_environment", {})), DONE)), servers=["tenant"])
    (message,) = tool_messages(tenant.run_task("environment", "go"))
    assert "TENANT_TOKEN" in message
    for foreign in ("KUBECONFIG", "KUBECHAIN_", "OTEL_", "OPENAI_API_KEY"):
        assert foreign not in message


def test_secrets_show_up_nowhere(tenant: Workspace) -> None:
    """A provider, a tool's result and a tool's error that quote their secret; then everything there is is searched."""
    quoting = Reply(status=400, error=f"Key {tenant.key} may not use this model.")
    llm = tenant.serve_llm(
        in_turns(calls(("tenant__blurt", {}), ("tenant__stumble", {})), quoting), require_key=tenant.key
    )
    tenant.apply_agent(llm, servers=["tenant"])
    tenant.kubectl.apply(manifests.task("leaky", "go"))
    task = tenant.kubectl.finish("leaky", "Failed")
    assert task["status"]["error"] == "Key *** may not use this model."
    assert tool_messages(task) == ["the token is ***", "Error: Error executing tool stumble: the backend refused ***"]
    searched = 0
    for place, text in everything_written(tenant):
        searched += 1
        for secret in tenant.cluster.secrets:
            assert secret.encode() not in text, f"{place} holds a secret"
    assert searched > 10


def everything_written(workspace: Workspace) -> Iterator[tuple[str, bytes]]:
    """(where, what): every object but the Secrets themselves, every log, and what lies in the message bus."""
    kinds = ("events", "llm", "agent", "mcpserver", "task", "taskruntoolcall", "configmaps", "leases")
    read: Callable[..., str] = workspace.kubectl
    for kind in kinds:
        text = read("get", kind, "-A", "-o", "json")
        # kubectl itself keeps a copy of what was applied; none of our manifests but a Secret's holds a secret.
        yield kind, text.encode()
    for folder, _, names in os.walk(workspace.cluster.state_dir):
        path = Path(folder)
        if path.name == "etcd" or "etcd" in path.relative_to(workspace.cluster.state_dir).parts:
            continue  # the API server's own storage, with the Secrets in it
        for name in names:
            file = path / name
            if file.is_file():
                yield str(file), file.read_bytes()
