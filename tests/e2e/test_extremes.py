"""What is unusual and right all the same: long names, dots, every script, a megabyte, hundreds of tools."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.scripts import calls, in_turns
from tests.e2e.support.workspace import Workspace, tool_messages

from kubechain_cli.scripted_llm import Reply

pytestmark = pytest.mark.e2e

FIT = re.compile(r"[a-zA-Z0-9_-]{1,64}")
DONE = Reply("done")
ODD = "🚀 שלום مرحبا \u202e 漢字 \u0007\u0000 é e\u0301 \U0010ffff"


def long_name(prefix: str) -> str:
    """253 characters with dots in them."""
    return (prefix + ".a-b" * 70)[:252] + "z"


def test_names_of_253_characters_with_dots(workspace: Workspace) -> None:
    llm_name, agent_name, server_name, task_name = (long_name(kind) for kind in ("llm", "agent", "server", "task"))
    found: list[str] = []

    def script(messages: Any, tools: Any) -> Reply:
        found[:] = [tool.name for tool in tools]
        if any(message.role == "tool" for message in messages):
            return DONE
        return calls(*((name, {}) for name in found if "tool_7" in name or name == found[7]))

    llm = workspace.serve_llm(script)
    workspace.kubectl.apply(
        manifests.secret("openai", OPENAI_API_KEY=workspace.key),
        manifests.llm(llm.url, name=llm_name),
        manifests.own_server(server_name, "odd_server.py", "many"),
        manifests.agent(name=agent_name, servers=[server_name], llmRef={"name": llm_name}),
        manifests.task(task_name, "go", agent=agent_name),
    )
    task = workspace.kubectl.finish(task_name, timeout=60)
    assert [json.loads(message)["tool"] for message in tool_messages(task)] == ["tool_7"]
    (call,) = workspace.kubectl.list("taskruntoolcall")
    assert len(call["metadata"]["name"]) <= 253
    assert call["spec"]["target"] == {"name": server_name, "tool": "tool_7"}
    assert len(call["metadata"]["labels"]["kubechain.humanlayer.dev/taskruntoolcall"]) <= 63
    assert len(found) == len(set(found)) == 200
    assert all(FIT.fullmatch(name) for name in found)
    status = workspace.kubectl.get("mcpserver", server_name)["status"]
    assert status["statusDetail"] == "Connected successfully with 200 tools"
    assert len(json.dumps(status)) < 200_000


def test_odd_tools_and_every_script_go_through(workspace: Workspace) -> None:
    """Each tool is offered under a name of its own that fits, and is called by it with whatever the model writes."""

    def script(messages: Any, tools: Any) -> Reply:
        if any(message.role == "tool" for message in messages):
            return Reply(ODD)
        return calls(*((tool.name, {"text": ODD}) for tool in tools))

    llm = workspace.serve_llm(script)
    workspace.kubectl.apply(manifests.own_server("odd", "odd_server.py", "odd"))
    workspace.apply_agent(llm, servers=["odd"])
    task = workspace.run_task("odd", ODD)
    answers = [json.loads(message) for message in tool_messages(task)]
    tools = workspace.kubectl.get("mcpserver", "odd")["status"]["tools"]
    assert [answer["tool"] for answer in answers] == [tool["name"] for tool in tools]
    assert len(answers) == 8
    assert {answer["arguments"]["text"] for answer in answers} == {ODD}
    assert task["status"]["output"] == ODD
    names = [call["function"]["name"] for m in task["status"]["contextWindow"] for call in m.get("toolCalls", ())]
    assert len(names) == len(set(names))
    assert all(FIT.fullmatch(name) for name in names)


def test_two_servers_whose_tools_would_share_a_name(workspace: Workspace) -> None:
    """Providers take no dot, so `odd.one` and `odd-one` would both become what `odd_one` is called."""

    def script(messages: Any, tools: Any) -> Reply:
        if any(message.role == "tool" for message in messages):
            return DONE
        return calls(*((tool.name, {"text": tool.name}) for tool in tools if "recursive" in tool.name))

    llm = workspace.serve_llm(script)
    servers = ["odd.one", "odd-one", "odd.o.ne"]
    workspace.kubectl.apply(*(manifests.own_server(name, "odd_server.py", "odd") for name in servers))
    workspace.apply_agent(llm, servers=servers)
    workspace.run_task("alike", "go")
    targets: list[Mapping[str, str]] = [call["spec"]["target"] for call in workspace.calls_of("alike")]
    assert [target["name"] for target in targets] == servers
    assert {target["tool"] for target in targets} == {"recursive"}


def test_half_a_surrogate_pair_of_a_tool_is_replaced(workspace: Workspace) -> None:
    workspace.kubectl.apply(manifests.own_server("odd", "odd_server.py", "odd", requestTimeoutSeconds=3))
    workspace.apply_agent(
        workspace.serve_llm(in_turns(calls(("odd__recursive", {"half": True})), DONE)), servers=["odd"]
    )
    task = workspace.run_task("half", "go")
    (message,) = tool_messages(task)
    assert message.endswith("\ufffd")
    assert task["status"]["output"] == "done"


def test_a_message_of_the_full_length_works_or_says_why_not(workspace: Workspace) -> None:
    """400 KB go through; where the message does not fit in spec and status both, the Task says so."""
    llm = workspace.serve_llm(in_turns(DONE))
    workspace.apply_agent(llm)
    for name, size, phases in (("long", 400_000, {"FinalAnswer"}), ("longest", 1_048_576, {"FinalAnswer", "Failed"})):
        task = json.dumps(manifests.task(name, "x" * size))
        workspace.kubectl("create", "-f", "-", input=task)
        workspace.kubectl.wait(f"task/{name}", "jsonpath={.status.completionTime}", timeout=30)
        status = workspace.kubectl.get("task", name)["status"]
        assert status["phase"] in phases, status["statusDetail"]
        if status["phase"] == "Failed":
            assert "does not fit into what Kubernetes stores" in status["statusDetail"]
