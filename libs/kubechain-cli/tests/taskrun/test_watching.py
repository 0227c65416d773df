"""A watch at an API server, played by a loopback server, that refuses: what ends it, and what is told of the rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kubechain_cli.answering.finding import Finder
from kubechain_cli.commands.inbox import follow
from kubechain_cli.options import Output
from kubechain_cli.taskrun.watching import Outage, watch_objects
from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import ForbiddenError, KubeError, UnauthorizedError, UnavailableError
from kubechain_common.testing.builders import build_call

END = 403


class ApiServer:
    """Answers each list and each watch with the next code there is, and the last one again and again.

    A good watch brings one object. With a token, no other is taken but for the first request.
    """

    def __init__(self, lists: list[int], watches: list[int], token: str = "") -> None:
        self._codes = {False: lists, True: watches}
        self._token = token

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "/tasks/" in request.path:
            return refuse(404)
        watched = "watch" in request.query
        codes = self._codes[watched]
        code = codes.pop(0) if len(codes) > 1 else codes[0]
        if code != 200:
            return refuse(code)
        if watched and self._token and request.headers["Authorization"] != f"Bearer {self._token}":
            codes.insert(0, code)
            return refuse(401)
        if not watched:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})
        call = build_call("late", status={"phase": "Pending", "status": "AwaitingHumanApproval"}, target=None)
        return web.Response(text=json.dumps({"type": "ADDED", "object": call.to_wire()}) + "\n")


def refuse(code: int) -> web.Response:
    return web.json_response({"code": code, "message": f"refused {code}"}, status=code)


Take = Callable[[str], None]


def ignore(_: str) -> None:
    return


async def watch(see: Take = ignore, tell: Take = ignore) -> None:
    """Until the watch ends with an error, which it should soon."""
    outage = Outage(lambda error: tell(str(error)))
    async with asyncio.timeout(20), KubeClient.connect("test") as kube:
        async for sight in watch_objects(kube, TaskRunToolCall, "ns", {}, "", outage):
            see(sight.name)


Serve = Callable[[Any], Awaitable[None]]


@pytest.mark.parametrize(
    ("code", "error"), [(401, UnauthorizedError), (404, UnavailableError), (503, UnavailableError)]
)
async def test_a_watch_that_can_not_even_begin_says_why(serve_api: Serve, code: int, error: type[KubeError]) -> None:
    await serve_api(ApiServer([code], [END]).answer)
    with pytest.raises(error, match=f"refused {code}"):
        await watch()


async def test_nothing_to_connect_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve_api: Serve) -> None:
    await serve_api(ApiServer([200], [END]).answer)
    config = json.loads((tmp_path / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with pytest.raises(UnavailableError, match="cannot reach"):
        await watch()


async def test_what_is_there_is_listed_in_pages(serve_api: Serve) -> None:
    lists: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            assert request.query["resourceVersion"] == "7"
            return refuse(END)
        lists.append(f"{request.query.get('limit')} {request.query.get('continue', '')}".strip())
        page = int(request.query.get("continue", 1))
        items = [build_call(f"call-{page}", target=None).to_wire()]
        following = {"continue": str(page + 1)} if page < 3 else {}
        return web.json_response({"metadata": {"resourceVersion": "7", **following}, "items": items})

    await serve_api(answer)
    seen: list[str] = []
    with pytest.raises(ForbiddenError):
        await watch(seen.append)
    assert (seen, lists) == (["call-1", "call-2", "call-3"], ["500", "500 2", "500 3"])


async def test_a_static_token_that_is_refused_ends_the_watch(serve_api: Serve) -> None:
    await serve_api(ApiServer([200], [200, 401]).answer)
    seen: list[str] = []
    with pytest.raises(UnauthorizedError, match="refused 401"):
        await watch(seen.append)
    assert seen == ["late"]


async def test_credentials_that_can_be_renewed_are(serve_api: Serve, tmp_path: Path) -> None:
    await serve_api(ApiServer([200], [200, END], token="second").answer)
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"""#!/bin/sh
test -e {tmp_path}/asked && token=second || token=first
touch {tmp_path}/asked
echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {{"token": "'$token'"}}}}'
"""
    )
    plugin.chmod(0o755)
    config = json.loads((tmp_path / "kubeconfig").read_text())
    executed = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": executed}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    seen: list[str] = []
    with pytest.raises(ForbiddenError):
        await watch(seen.append)
    assert seen == ["late"]


async def test_each_outage_is_told_once_and_a_single_break_is_not(serve_api: Serve) -> None:
    await serve_api(ApiServer([200], [503, 200, 503, 503, 503, 200, 404, 429, 404, END]).answer)
    told: list[str] = []
    with pytest.raises(ForbiddenError):
        await watch(tell=told.append)
    assert [text.rpartition(" ")[2] for text in told] == ["503", "429"]


async def test_the_inbox_tells_it_on_standard_error(serve_api: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    await serve_api(ApiServer([200], [503, 503, 503, END]).answer)
    async with asyncio.timeout(20), KubeClient.connect("test") as kube:
        with pytest.raises(ForbiddenError):
            await follow(Finder(kube, "ns"), Output.JSON)
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.startswith("No news for now: ")) == ("", 1, True)
