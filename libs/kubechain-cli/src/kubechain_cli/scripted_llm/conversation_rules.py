"""The rules of a conversation on which the real providers insist.

A stand-in that took anything would let a wrong mapping pass every test and fail at the first real key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kubechain_cli.scripted_llm.errors import RefusedError
from kubechain_cli.scripted_llm.script import ChatMessage, ToolSpec

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_conversation(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> None:
    """Raise ``RefusedError`` (400) unless the conversation is one that a provider takes."""
    if not any(message.role != "system" for message in messages):
        raise RefusedError(400, "messages: at least one message is required")
    check_tools(tools)
    waiting: set[str] = set()
    for position, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                raise RefusedError(
                    400, f"messages.{position}: tool result for {message.tool_call_id!r}, which no tool call asked for"
                )
            waiting.discard(message.tool_call_id)
            continue
        if waiting:
            raise RefusedError(400, f"messages.{position}: tool calls without a result before it: {sorted(waiting)}")
        waiting = {call.id for call in message.tool_calls}
    if waiting:
        raise RefusedError(400, f"messages: tool calls without a result at the end: {sorted(waiting)}")


def check_tools(tools: Sequence[ToolSpec]) -> None:
    """Raise ``RefusedError`` (400) for a tool name that is unfit or there twice."""
    seen: set[str] = set()
    for position, tool in enumerate(tools):
        if not _TOOL_NAME.fullmatch(tool.name):
            raise RefusedError(400, f"tools.{position}: name {tool.name!r} does not match '^[a-zA-Z0-9_-]{{1,64}}$'")
        if tool.name in seen:
            raise RefusedError(400, f"tools.{position}: name {tool.name!r} is there twice")
        seen.add(tool.name)
