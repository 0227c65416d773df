"""Fakes of the NATS client, just deep enough for the parts that are hard to provoke with a real server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest


class FakeSubscription:
    """``late`` is what the server had sent when the subscription was ended."""

    def __init__(self, deliver: Callable[[Any], Awaitable[None]]) -> None:
        self.deliver = deliver
        self.late: list[Any] = []
        self.ended = ""

    async def drain(self) -> None:
        self.ended = "drain"
        for message in self.late:
            await self.deliver(message)

    async def unsubscribe(self) -> None:
        self.ended = "unsubscribe"


class FakeNats:
    """The client: remembers what was published and subscribed."""

    def __init__(self) -> None:
        self.is_connected = True
        self.published: list[tuple[str, dict[str, Any], str]] = []
        self.subscriptions: list[FakeSubscription] = []

    def new_inbox(self) -> str:
        return f"_INBOX.{len(self.subscriptions)}"

    async def subscribe(self, _: str, cb: Callable[[Any], Awaitable[None]]) -> FakeSubscription:
        self.subscriptions.append(FakeSubscription(cb))
        return self.subscriptions[-1]

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        self.published.append((subject, json.loads(payload), reply))

    @property
    def asked_for(self) -> list[int]:
        return [body["batch"] for _, body, _ in self.published]


@pytest.fixture
def nats_client() -> FakeNats:
    return FakeNats()
