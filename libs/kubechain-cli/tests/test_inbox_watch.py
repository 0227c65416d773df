"""``kubechain inbox --watch`` at an API server that has bad moments, played by a loopback server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from kubechain_cli.answering.finding import Finder
from kubechain_cli.commands.inbox import follow
from kubechain_cli.options import Output
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import ForbiddenError, KubeError
from kubechain_common.testing.builders import build_call

WAITING = {"phase": "Pending", "status": "AwaitingHumanApproval"}
TASK = {"metadata": {"name": "t", "namespace": "ns"}, "spec": {"agentRef": {"name": "helper"}, "userMessage": "hi"}}


def waiting(name: str, version: str) -> dict[str, Any]:
    raw: dict[str, Any] = build_call(name, status=WAITING, target=None).to_wire()
    raw["metadata"] |= {"uid": name, "resourceVersion": version}
    return raw


def of_another_version(name: str, version: str) -> dict[str, Any]:
    raw = waiting(name, version)
    raw["spec"]["toolType"] = "Telepathy"
    return raw


class ApiServer:
    """Lists one call, then watches one more, then refuses. Task lookups are answered from ``lookups``, in turn."""

    def __init__(self) -> None:
        self.lookups: list[web.Response] = []
        self._watches = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "/tasks/" in request.path:
            return self.lookups.pop(0)
        if "watch" not in request.query:
            items = [of_another_version("alien-1", "1"), waiting("early", "2")]
            return web.json_response({"metadata": {"resourceVersion": "2"}, "items": items})
        self._watches += 1
        if self._watches > 1:
            return web.json_response({"code": 403, "message": "no more"}, status=403)
        seen = [of_another_version("alien-2", "3"), waiting("late", "4")]
        return web.Response(text="".join(json.dumps({"type": "ADDED", "object": item}) + "\n" for item in seen))


@pytest.fixture
async def api_server(serve_api: Callable[[Any], Awaitable[None]]) -> ApiServer:
    api_server = ApiServer()
    await serve_api(api_server.answer)
    return api_server


@pytest.mark.parametrize("code", [429, 503])
async def test_an_arrival_is_shown_without_extras_while_they_can_not_be_had(
    api_server: ApiServer, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    api_server.lookups = [web.json_response({"code": code, "message": "busy"}, status=code), web.json_response(TASK)]
    async with asyncio.timeout(20), KubeClient.connect("test") as kube:
        with pytest.raises(ForbiddenError, match="no more"):
            await follow(Finder(kube, "ns"), Output.JSON)
    shown = [json.loads(line)["call"] for line in capsys.readouterr().out.splitlines()]
    assert [(call["name"], call.get("agent")) for call in shown] == [("early", None), ("late", "helper")]


async def test_a_watch_ends_with_what_waiting_would_not_mend(api_server: ApiServer) -> None:
    api_server.lookups = [web.json_response({"code": 405, "message": "never"}, status=405)]
    async with asyncio.timeout(20), KubeClient.connect("test") as kube:
        with pytest.raises(KubeError, match="405 never"):
            await follow(Finder(kube, "ns"), Output.JSON)
