"""Scripts for the scripted LLM beyond those that come with it. Each is a pure function of the conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kubechain_cli.scripted_llm import ChatMessage, Reply, Script, ToolCall, ToolSpec

Call = tuple[str, Mapping[str, Any]]
"""(tool, arguments)."""


def calls(*wanted: Call, text: str = "") -> Reply:
    """A reply that asks for these tool calls, with ids that name their place."""
    return Reply(
        text,
        tuple(ToolCall(f"call_{i}_{name}"[:40], name, json.dumps(dict(a))) for i, (name, a) in enumerate(wanted)),
    )


def in_turns(*replies: Reply) -> Script:
    """The replies one after another; the last one answers everything after it."""

    def script(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
        spoken = sum(message.role == "assistant" for message in messages)
        return replies[min(spoken, len(replies) - 1)]

    return script


def count_turns(tool: str) -> Script:
    """Obeys {"task": name, "turns": n, "parallel": m, "ms": t, "llm_ms": l}.

    Each call says which task, turn and index it is, and takes t ms; each reply of the LLM takes l ms.
    """

    def script(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
        order = json.loads(next(message.text for message in messages if message.role == "user"))
        turn = sum(message.role == "assistant" for message in messages) + 1
        delay = order["llm_ms"] / 1000
        if turn > order["turns"]:
            return Reply(f"done after {order['turns']} turns", delay=delay)
        wanted = tuple(
            ToolCall(
                f"call_{order['task']}_{turn}_{index}",
                tool,
                json.dumps({"task": order["task"], "turn": turn, "index": index, "ms": order["ms"]}),
            )
            for index in range(order["parallel"])
        )
        return Reply(tool_calls=wanted, delay=delay)

    return script
