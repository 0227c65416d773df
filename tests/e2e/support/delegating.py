"""A family of agents that delegate, and what its Tasks are told to do.

An order is a list of turns and each turn a list of calls, as for ``obedient.obey``; a call that delegates holds the
order for the sub-agent. At its end each agent says what its tools said, so the text of the first is that of the tree.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.support import manifests
from tests.e2e.support.obedient import Turn, obey, write_order
from tests.e2e.support.workspace import ToolLog, Workspace

from kubechain_cli.scripted_llm import ChatMessage, Reply, ScriptedServer, ToolSpec

FAMILY = ("parent", "child", "grandchild")


def report(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
    """The script: does what it is told, then says what it read."""
    reply = obey(messages, tools)
    if reply.tool_calls:
        return reply
    return Reply(" + ".join(message.text for message in messages if message.role == "tool") or "nothing to do")


def count(label: str, ms: int = 0) -> tuple[str, str]:
    """A call of the counting server, which says ``counted <label> 1 0``."""
    return "counting__count", json.dumps({"task": label, "turn": 1, "index": 0, "ms": ms})


def delegate(agent: str, *turns: Turn) -> tuple[str, str]:
    return f"delegate_to_agent__{agent}", json.dumps({"message": write_order(*turns)})


def tree_order(name: str, ms: int = 0) -> str:
    """Seven executions in a parent, its child and its grandchild, before, beside and after the delegations."""
    grandchild: Turn = [count(f"{name}-grandchild-a", ms), count(f"{name}-grandchild-b", ms)]
    child: Turn = [count(f"{name}-child-a", ms), delegate("grandchild", grandchild)]
    return write_order(
        [count(f"{name}-parent-a", ms), delegate("child", child, [count(f"{name}-child-b", ms)])],
        [count(f"{name}-parent-b", ms)],
    )


def tree_labels(name: str) -> set[str]:
    return {f"{name}-{agent}-{letter}" for agent in FAMILY for letter in "ab"}


def tree_output(name: str) -> str:
    said = ["parent-a", "child-a", "grandchild-a", "grandchild-b", "child-b", "parent-b"]
    return " + ".join(f"counted {name}-{label} 1 0" for label in said)


def apply_family(workspace: Workspace, folder: Path, **parent: Any) -> tuple[ScriptedServer, ToolLog]:
    """Agents parent, child and grandchild, each the sub-agent of the one before, with one MCPServer; all ready."""
    log = ToolLog(folder / f"{workspace.namespace}.jsonl")
    llm = workspace.serve_llm(report)
    workspace.kubectl.apply(
        manifests.secret("openai", OPENAI_API_KEY=workspace.key),
        manifests.llm(llm.url),
        manifests.own_server("counting", "counting_server.py", str(log.path)),
        manifests.agent("parent", servers=["counting"], subAgents=[{"name": "child"}], **parent),
        manifests.agent("child", servers=["counting"], subAgents=[{"name": "grandchild"}], description="Helps."),
        manifests.agent("grandchild", servers=["counting"]),
    )
    for agent in FAMILY:
        workspace.kubectl.wait(f"agent/{agent}", timeout=60)
    return llm, log
