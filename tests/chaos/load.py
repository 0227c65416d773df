"""Keeps a number of Tasks in flight, whatever happens to the API server."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tests.chaos.history import History
from tests.chaos.orders import ASKED, HOOKED, SERVER, Order, draw_order
from tests.chaos.servers.people import API_KEY, SIGNING_SECRET

from kubechain_common.api.v1alpha1 import LLM, Agent, ContactChannel, MCPServer, Resource, Task
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import AlreadyExistsError, KubeError
from kubechain_common.kube.paths import core_path

IN_FLIGHT = 150
AGENT = "chaos"
_POLL = 0.1
_READY_WITHIN = 60.0


async def create(kube: KubeClient, obj: Resource) -> None:
    """Until it is there."""
    while True:
        try:
            await kube.create(obj)
        except AlreadyExistsError:
            return  # the answer to an earlier attempt was lost
        except KubeError:
            await asyncio.sleep(_POLL)
        else:
            return


async def create_agent(kube: KubeClient, namespace: str, llm_url: str, people_url: str, tools: list[str]) -> None:
    """The LLM, the channels, the MCPServers and the Agent; returns when the Agent is ready."""

    def meta(name: str) -> dict[str, str]:
        return {"name": name, "namespace": namespace}

    server = {"transport": "stdio", "command": tools[0], "args": tools[1:], "maxConcurrency": 64}
    model = {"provider": "openai", "parameters": {"model": "gpt-4o", "baseUrl": llm_url}}
    agent = {
        "llmRef": {"name": "llm"},
        "system": "You obey orders.",
        "mcpServers": [{"name": n} for n in (SERVER, ASKED, HOOKED)],
    }
    keys = {"apiKey": API_KEY, "signingSecret": SIGNING_SECRET}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta("people"), "stringData": keys}
    await kube.request("POST", core_path("secrets", namespace), body=secret)
    asked, hooked = build_channels(people_url)
    await create(kube, ContactChannel.model_validate({"metadata": meta(ASKED), "spec": asked}))
    await create(kube, ContactChannel.model_validate({"metadata": meta(HOOKED), "spec": hooked}))
    await create(kube, MCPServer.model_validate({"metadata": meta(SERVER), "spec": server}))
    for name in (ASKED, HOOKED):
        guarded = {**server, "approvalContactChannel": {"name": name}}
        await create(kube, MCPServer.model_validate({"metadata": meta(name), "spec": guarded}))
    await create(kube, LLM.model_validate({"metadata": meta("llm"), "spec": model}))
    await create(kube, Agent.model_validate({"metadata": meta(AGENT), "spec": agent}))
    async with asyncio.timeout(_READY_WITHIN):
        while not (await kube.get(Agent, namespace, AGENT)).status.ready:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(_POLL)


def build_channels(people_url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The specs of the two channels, one by the HumanLayer API and one by webhook."""

    def key(name: str) -> dict[str, Any]:
        return {"secretKeyRef": {"name": "people", "key": name}}

    asked = {
        "type": "email",
        "apiKeyFrom": key("apiKey"),
        "humanLayer": {"baseUrl": people_url},
        "email": {"address": "approver@example.com"},
    }
    hooked = {
        "type": "webhook",
        "webhook": {"url": f"{people_url}/hook", "signingSecretFrom": key("signingSecret")},
    }
    return asked, hooked


class Load:
    """``orders`` are those of all Tasks created so far."""

    def __init__(self, kube: KubeClient, namespace: str, history: History, rng: random.Random, in_flight: int) -> None:
        self.orders: list[Order] = []
        self._kube = kube
        self._namespace = namespace
        self._history = history
        self._rng = rng
        self._in_flight = in_flight

    async def run(self, enough: asyncio.Event) -> None:
        """Until ``enough`` is set."""
        while not enough.is_set():
            room = self._in_flight - len(self._history.unfinished)
            if room > 0:
                async with asyncio.TaskGroup() as group:
                    for _ in range(room):
                        group.create_task(self._create_task())
            await asyncio.sleep(_POLL)

    async def _create_task(self) -> None:
        order = draw_order(f"{self._namespace}-{len(self.orders):04d}", self._rng)
        self.orders.append(order)
        self._history.expect(order.task)
        spec = {"agentRef": {"name": AGENT}, "userMessage": order.to_message()}
        metadata = {"name": order.task, "namespace": self._namespace}
        await create(self._kube, Task.model_validate({"metadata": metadata, "spec": spec}))
