"""The script for tests and benchmarks: the user message itself says, in JSON, how many tool turns the run shall take.

    {"turns": 3, "tool": "echo__echo", "arguments": {"message": "hi"}, "parallel": 1, "delay_ms": 0, "pause_ms": 0}

The turns done so far are counted from the conversation, so a run goes on where it was after any restart. Only the
final answer is bare of the marker, because the programs that read it compare it whole; no person reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kubechain_cli.scripted_llm.script import ChatMessage, Reply, ToolSpec, build_tool_call, marked


class Order(BaseModel):
    """What a user message asks of the script; ``delay_ms`` holds up every reply, ``pause_ms`` each of its pieces."""

    model_config = ConfigDict(extra="forbid")

    turns: int = Field(default=0, ge=0)
    tool: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    parallel: int = Field(default=1, ge=1)
    delay_ms: float = Field(default=0, ge=0)
    pause_ms: float = Field(default=0, ge=0)


def reply_tools(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
    """Ask for tool calls for as many turns as the last user message orders, then say that it is done."""
    asked = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    if asked < 0:
        return Reply(status=400, error="the tools script needs a user message")
    try:
        order = Order.model_validate(orjson.loads(messages[asked].text))
    except (orjson.JSONDecodeError, ValidationError):
        return Reply(marked('expected an order such as {"turns": 3, "tool": "echo__echo", "arguments": {}}'))
    done = sum(message.role == "assistant" for message in messages[asked:])
    delay = order.delay_ms / 1000
    if done >= order.turns:
        return Reply(f"done after {order.turns} turns", delay=delay, pause=order.pause_ms / 1000)
    if order.tool not in {tool.name for tool in tools}:
        offered = ", ".join(tool.name for tool in tools) or "none"
        return Reply(marked(f"the order wants tool {order.tool!r}, on offer: {offered}"), delay=delay)
    calls = [build_tool_call(messages, index, order.tool, order.arguments) for index in range(order.parallel)]
    return Reply(tool_calls=tuple(calls), delay=delay)
