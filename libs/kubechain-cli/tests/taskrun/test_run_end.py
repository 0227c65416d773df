"""How `kubechain run` ends and when `--rm` deletes the Task, with a loopback server in the place of the API server."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kubechain_cli.commands.run import RunOptions, Session
from kubechain_cli.taskrun.errors import RunError
from kubechain_cli.taskrun.terminal import new_literal_console
from kubechain_common.testing.builders import build_agent, build_task

ANSWERED = {"phase": "FinalAnswer", "output": "42 \N{CHECK MARK}"}


class ApiServer:
    """Has one agent; finishes its Task at once, or then knows nobody any more; remembers what it was told to delete."""

    def __init__(self, status: dict[str, Any] | None) -> None:
        self._status = status
        self.deleted: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "DELETE":
            self.deleted.append(request.path.rpartition("/")[2])
            return web.json_response({})
        if "/agents/" in request.path:
            return web.json_response(build_agent().to_wire())
        if request.method == "POST":
            return web.json_response(build_task("t").to_wire())
        if self._status is None:
            return web.json_response({"code": 401, "message": "the token has expired"}, status=401)
        if not request.path.endswith("/tasks"):
            return web.Response()
        done = build_task("t", status=self._status, metadata={"resourceVersion": "2"})
        return web.Response(text=json.dumps({"type": "MODIFIED", "object": done.to_wire()}) + "\n")


async def run(api_server: ApiServer, serve_api: Callable[[Any], Awaitable[None]]) -> None:
    await serve_api(api_server.answer)
    options = RunOptions("my-assistant", "hi", remove=True, timeout=20)
    await Session(options, new_literal_console(io.StringIO()), None).run()


@contextmanager
def full_stdout(monkeypatch: pytest.MonkeyPatch, encoding: str) -> Iterator[None]:
    with open("/dev/full", "w", encoding=encoding) as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        yield


async def test_the_task_is_deleted_once_its_answer_is_printed(
    serve_api: Callable[[Any], Awaitable[None]], capsys: pytest.CaptureFixture[str]
) -> None:
    api_server = ApiServer(ANSWERED)
    await run(api_server, serve_api)
    assert (capsys.readouterr().out, api_server.deleted) == (f"{ANSWERED['output']}\n", ["t"])


async def test_the_task_is_deleted_when_it_failed(serve_api: Callable[[Any], Awaitable[None]]) -> None:
    api_server = ApiServer({"phase": "Failed", "error": "no money"})
    with pytest.raises(RunError, match="no money"):
        await run(api_server, serve_api)
    assert api_server.deleted == ["t"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
@pytest.mark.parametrize(("encoding", "why"), [("utf-8", "No space left"), ("ascii", "can't encode")])
async def test_an_answer_that_could_not_be_written_stays_in_its_task(
    serve_api: Callable[[Any], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, encoding: str, why: str
) -> None:
    api_server = ApiServer(ANSWERED)
    told = pytest.raises(RunError, match=f"{why}.*kubectl get task t --namespace default -o jsonpath")
    with full_stdout(monkeypatch, encoding), told:
        await run(api_server, serve_api)
    assert api_server.deleted == []


async def test_a_token_that_expires_ends_the_run_and_not_the_task(serve_api: Callable[[Any], Awaitable[None]]) -> None:
    with pytest.raises(RunError, match=r"the token has expired\. Task t goes on\. See it with"):
        await run(ApiServer(None), serve_api)
