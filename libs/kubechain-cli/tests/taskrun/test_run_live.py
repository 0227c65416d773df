"""What a followed run shows of a text that comes by one road, and of the steps of its Task, which come by another."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web

from kubechain_cli.commands.run import RunOptions, Session
from kubechain_cli.taskrun import following
from kubechain_cli.taskrun.terminal import new_literal_console
from kubechain_common.api.v1alpha1 import Task
from kubechain_common.messages import LLMDelta
from kubechain_common.testing.builders import build_agent, build_task

ANSWER = "It is 42, naturally."
ASKED = {"phase": "SendContextWindowToLLM", "turn": 1}
ANSWERED = {
    "phase": "FinalAnswer",
    "turn": 1,
    "output": ANSWER,
    "contextWindow": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ANSWER}],
}


class ApiServer:
    """Has one agent; its Task is asked, and then answered, once each is allowed."""

    def __init__(self) -> None:
        self.tells_of_asking, self.tells_of_the_answer = asyncio.Event(), asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "/agents/" in request.path:
            return web.json_response(build_agent().to_wire())
        if request.method == "POST":
            return web.json_response(build_task("t").to_wire())
        if not request.path.endswith("/tasks"):
            return web.Response()
        response = web.StreamResponse()
        with suppress(ConnectionResetError):  # the run has seen its end
            await response.prepare(request)
            await self.tells_of_asking.wait()
            await response.write(modified(ASKED, "2"))
            await self.tells_of_the_answer.wait()
            await response.write(modified(ANSWERED, "3"))
        return response


def modified(status: dict[str, Any], version: str) -> bytes:
    task = build_task("t", status=status, metadata={"resourceVersion": version})
    return json.dumps({"type": "MODIFIED", "object": task.to_wire()}).encode() + b"\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def follow(
    serve_api: Callable[[Any], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    """A run that hears of the beginning of its text only."""
    api_server = ApiServer()

    async def hear_text(url: str, task: Task, take: Callable[[LLMDelta], None]) -> None:
        take(LLMDelta(turn=1, attempt=1, call=1, offset=0, text="It is"))
        api_server.tells_of_asking.set()
        take(LLMDelta(turn=1, attempt=1, call=1, offset=5, text=" 42,"))
        api_server.tells_of_the_answer.set()

    monkeypatch.setattr(following, "hear_text", hear_text)
    await serve_api(api_server.answer)
    options = RunOptions("my-assistant", "hi", follow=True, timeout=20)
    await Session(options, new_literal_console(shown), "nats://localhost").run()


async def test_a_terminal_that_shows_the_text_shows_the_answer_once(
    serve_api: Callable[[Any], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    await follow(serve_api, monkeypatch, terminal)
    assert ANSWER in terminal.getvalue()
    assert terminal.getvalue().count("It is 42,") == 1


async def test_a_text_is_neither_interrupted_by_its_turn_nor_left_without_its_end(
    serve_api: Callable[[Any], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    await follow(serve_api, monkeypatch, shown)
    asking, text, end = shown.getvalue().splitlines()[1:]
    assert asking.endswith("· turn 1: asking the LLM")
    assert text == ANSWER
    assert end.endswith("✓ final answer after 1 turn")
