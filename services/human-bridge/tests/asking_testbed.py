"""What a request to a person meets, all in memory: the bus, the API server, the Secrets and the person."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from kubechain_common.api.v1alpha1 import ContactChannel, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.errors import KubeError, NotFoundError
from kubechain_common.messages import Envelope, ObjectRef
from kubechain_common.messages.human import AnswerCheck, HumanRequest, HumanResult
from kubechain_common.messages.topology import human_request_subject
from kubechain_common.messaging.delivery import Delivery
from kubechain_common.messaging.errors import BusUnavailableError
from kubechain_common.messaging.started_calls import Claim
from kubechain_common.testing.builders import NOW, build_call, build_task
from kubechain_human_bridge.asking.request_worker import RequestWorker
from kubechain_human_bridge.channels.base import Ask, Channel, Given, Kind, OwnChannel
from kubechain_human_bridge.contactchannels.access import ChannelAccess

R = TypeVar("R", bound=Resource)

WAITING = {
    "phase": "Pending",
    "status": "AwaitingHumanApproval",
    "externalCallID": "ec-1",
    "startTime": "2026-11-23T12:00:00Z",
}
ASKED = {"type": "HumanAsked", "status": "True", "reason": "r", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def build_channel(**spec: Any) -> ContactChannel:
    full = {
        "type": "email",
        "apiKeyFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
        "email": {"address": "a@example.com"},
        **spec,
    }
    metadata = {"name": "c", "namespace": "default", "uid": "channel-uid", "generation": 1}
    return ContactChannel.model_validate({"metadata": metadata, "spec": full})


class OwnRoad(OwnChannel):
    """A channel with a way back of its own."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def validate(self) -> str:
        return "fine"

    async def send(self, ask: Ask) -> str:
        self.world.asks.append(ask)
        self.world.at_once += 1
        self.world.most_at_once = max(self.world.most_at_once, self.world.at_once)
        await self.world.gate.wait()
        self.world.at_once -= 1
        if self.world.trouble is not None:
            raise self.world.trouble
        return "sent"

    async def aclose(self) -> None:
        pass


class PolledRoad(OwnRoad):
    async def find_answer(self, external_call_id: str, kind: Kind) -> Given | None:
        return None


class PlainLinks:
    def page_link(self, call: ObjectRef) -> str:
        return f"https://kc/{call.name}"

    def answer_link(self, call: ObjectRef, kind: Kind, by: str, expires_at: object = None) -> str:
        return f"https://kc/answer/{call.name}/{by}"


@dataclass
class World:
    """The bus, the API server and the person, all in memory."""

    call: TaskRunToolCall | None = None
    task: Task | None = field(default_factory=build_task)
    channel: ContactChannel | None = field(default_factory=build_channel)
    secret: dict[str, str] | None = field(default_factory=lambda: {"k": "1"})
    claims: dict[str, Claim] = field(default_factory=dict)
    record_created_at: datetime = NOW
    trouble: Exception | None = None
    failure: KubeError | None = None
    polled: bool = True
    published: list[tuple[str, Envelope]] = field(default_factory=list)
    there: set[str] = field(default_factory=set)
    asks: list[Ask] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    bus_down: bool = False
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(32))
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Nobody is reached before it is set."""
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        if self.call is None:
            self.call = build_call(status=WAITING)
        self.gate.set()
        self.access = ChannelAccess(_Channels(self), self, self.build)
        self.worker = RequestWorker(self, self, self, self.access, PlainLinks(), self.stopping)

    async def read(self, namespace: str, name: str) -> Mapping[str, str] | None:
        return self.secret

    def build(self, channel: ContactChannel, secrets: Mapping[str, str]) -> Channel:
        return PolledRoad(self) if self.polled else OwnRoad(self)

    async def get(self, kind: type[R], namespace: str, name: str) -> R:
        if self.failure is not None:
            raise self.failure
        found: Resource | None = self.call if kind is TaskRunToolCall else self.task
        if found is None:
            raise NotFoundError(name)
        assert isinstance(found, kind)
        return found

    async def claim(self, key: str) -> Claim:
        granted = self.claims.get(key, Claim.GRANTED)
        self.claims[key] = Claim.TAKEN if granted is Claim.GRANTED else granted
        return granted

    async def created_at(self) -> datetime:
        return self.record_created_at

    async def has_message(self, stream: str, subject: str) -> bool:
        return subject in self.there

    async def publish(self, subject: str, message: Envelope, **_: object) -> None:
        if self.bus_down:
            raise BusUnavailableError("down")
        self.published.append((subject, message))

    async def publish_until_stored(self, subject: str, message: Envelope, **_: object) -> None:
        self.published.append((subject, message))

    async def handle(self, *, attempt: int = 1, kind: Kind = "Approval") -> None:
        request = HumanRequest(
            call=ObjectRef(namespace="default", name="hello-1234567-tc-01", uid="uid-hello-1234567-tc-01"),
            channel=ObjectRef(namespace="default", name="c", uid="channel-uid"),
            kind=kind,
            external_call_id="ec-1",
            run_id="kc-1",
            requested_at=NOW,
        )
        subject = human_request_subject("channel-uid", "default", request.call.uid)
        await self.worker.handle_request(Delivery(request, attempt, None, subject, NOW, 1), self.turns)

    @property
    def results(self) -> list[HumanResult]:
        return [message for _, message in self.published if isinstance(message, HumanResult)]

    @property
    def checks(self) -> list[AnswerCheck]:
        return [message for _, message in self.published if isinstance(message, AnswerCheck)]


@dataclass
class _Channels:
    world: World

    def get(self, namespace: str, name: str) -> ContactChannel | None:
        return self.world.channel
