"""Tasks that call the tools that their message names, whatever comes of it, and what their model then reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.e2e.support import manifests
from tests.e2e.support.workspace import Workspace, tool_messages

from kubechain_cli.scripted_llm import ChatMessage, Reply, ScriptedServer, ToolCall, ToolSpec

Turn = list[tuple[str, str]]
"""(tool, arguments as the model writes them)."""


def obey(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
    """The script: the message is a list of turns, and each turn a list of calls."""
    turns = json.loads(next(message.text for message in messages if message.role == "user"))
    spoken = sum(message.role == "assistant" for message in messages)
    if spoken >= len(turns):
        return Reply("done")
    wanted = enumerate(turns[spoken])
    return Reply(tool_calls=tuple(ToolCall(f"call_{spoken}_{i}", name, text) for i, (name, text) in wanted))


def write_order(*turns: Turn) -> str:
    """The message for ``obey``."""
    return json.dumps(turns)


def start(workspace: Workspace, task: str, *turns: Turn, agent: str = "my-assistant") -> None:
    workspace.kubectl.apply(manifests.task(task, write_order(*turns), agent))


def finish(workspace: Workspace, llm: ScriptedServer, task: str, *turns: Turn) -> list[str]:
    """What the model read of its tools in its last request, which is what the finished Task shows, or begins to."""
    done = workspace.kubectl.finish(task, timeout=30)
    assert done["status"]["output"] == "done"
    asked = [request.body["messages"] for request in llm.requests if _is_about(request.body, write_order(*turns))]
    read = [str(message["content"]) for message in asked[-1] if message["role"] == "tool"]
    shown = tool_messages(done)
    assert len(read) == len(shown)
    assert all(whole == short or _is_preview(short, whole) for whole, short in zip(read, shown, strict=True))
    return read


def run(workspace: Workspace, llm: ScriptedServer, task: str, *turns: Turn) -> list[str]:
    start(workspace, task, *turns)
    return finish(workspace, llm, task, *turns)


def _is_preview(short: str, whole: str) -> bool:
    """The window shows the beginning of a long text, and how long it is."""
    begin, dots, size = short.rpartition("...")
    return bool(dots) and whole.startswith(begin) and size == f" [{len(whole.encode()):,} bytes]"


def _is_about(body: dict[str, Any], order: str) -> bool:
    return any(message["role"] == "user" and message["content"] == order for message in body["messages"])
