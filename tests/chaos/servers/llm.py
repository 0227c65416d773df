"""The scripted LLM as a process that obeys orders and notes every request: ``python -m tests.chaos.servers.llm FILE``.

Prints its URL once it listens, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from tests.chaos.notes import note
from tests.chaos.orders import Order

from kubechain_cli.scripted_llm import ChatMessage, Reply, Script, ScriptedServer, ToolCall, ToolSpec


def obey(messages: Sequence[ChatMessage]) -> tuple[Order, int, Reply]:
    """The order, the turn it stands in, and the reply."""
    order = Order.from_message(next(message.text for message in messages if message.role == "user"))
    turn = sum(message.role == "assistant" for message in messages) + 1
    delay = order.llm_ms[turn - 1] / 1000
    if turn > len(order.turns):
        return order, turn, Reply(order.answer, delay=delay)
    calls = tuple(
        ToolCall(
            f"call_{order.task}_{turn}_{index}",
            f"{call.server}__{call.tool}",
            json.dumps(
                {"task": order.task, "turn": turn, "index": index, "ms": call.ms}
                | ({"verdict": call.verdict} if call.verdict else {})
            ),
        )
        for index, call in enumerate(order.turns[turn - 1])
    )
    return order, turn, Reply(tool_calls=calls, delay=delay)


def build_script(log: Path) -> Script:
    def script(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
        order, turn, reply = obey(messages)
        digest = hashlib.sha256(repr(messages).encode()).hexdigest()[:16]
        told = [message.text for message in messages if message.role == "tool"]
        note(log, task=order.task, turn=turn, digest=digest, seconds=reply.delay, told=told)
        return reply

    return script


async def serve(log: Path) -> None:
    async with ScriptedServer(build_script(log), keep_requests=0) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
