"""HumanLayer's webhook on real HTTP: whom it believes, and what it believes them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from aiohttp.test_utils import TestClient, TestServer

from kubechain_common.api.v1alpha1 import ContactChannel, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.errors import NotFoundError, UnavailableError
from kubechain_common.messages import ObjectRef
from kubechain_common.testing.builders import build_call, build_mcp_server
from kubechain_human_bridge.answers.answers import Outcome, Verdict
from kubechain_human_bridge.answers.lookup import AnswerLookup
from kubechain_human_bridge.channels.base import Kind
from kubechain_human_bridge.channels.errors import ChannelUnavailableError
from kubechain_human_bridge.channels.standard_webhooks import read_key, sign
from kubechain_human_bridge.contactchannels.access import ChannelAccess
from kubechain_human_bridge.web.app import build_app
from kubechain_human_bridge.web.humanlayer_hook import HumanLayerHook, find_call_id

R = TypeVar("R", bound=Resource)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WAITING = {"phase": "Pending", "status": "AwaitingHumanApproval", "externalCallID": "ec-1"}
BODY = json.dumps({"type": "function_call.completed", "event": {"call_id": "ec-1", "status": {"approved": True}}})


class World(AnswerLookup):
    """One channel, one waiting call, and what a look at HumanLayer brings."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] | None = {"k": "key", "w": SECRET}
        self.secrets_away = False
        self.call = build_call(status=WAITING)
        self.server = build_mcp_server(approvalContactChannel={"name": "c"})
        self.outcome: Verdict | Exception | None = Verdict(Outcome.ACCEPTED, "Approved by alice")
        self.looks: list[tuple[ObjectRef, str, Kind, str]] = []
        self.refused: list[tuple[str, str]] = []
        access = ChannelAccess(_Channels(), self, _never_built)
        self.hook = HumanLayerHook(self, self, access, self, self.refuse)

    def refuse(self, channel: ContactChannel, reason: str, why: str) -> None:
        self.refused.append((channel.name, why))

    async def look(self, call: ObjectRef, channel: ContactChannel, kind: Kind, external_call_id: str) -> Verdict | None:
        self.looks.append((call, channel.name, kind, external_call_id))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def read(self, namespace: str, name: str) -> Mapping[str, str] | None:
        if self.secrets_away:
            raise UnavailableError("away")
        return self.secrets

    def find_external(self, namespace: str, external_call_id: str) -> TaskRunToolCall | None:
        return self.call if (namespace, external_call_id) == ("default", "ec-1") else None

    async def get(self, kind: type[R], namespace: str, name: str) -> R:
        if isinstance(self.server, kind):
            return self.server
        raise NotFoundError(name)


@dataclass
class _Channels:
    """``c`` and ``other`` have a webhook, ``plain`` has none; all of namespace default."""

    made: dict[str, ContactChannel] = field(default_factory=dict)

    def get(self, namespace: str, name: str) -> ContactChannel | None:
        if namespace != "default" or name not in ("c", "other", "plain"):
            return None
        spec: dict[str, Any] = {
            "type": "email",
            "apiKeyFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
            "email": {"address": "a@example.com"},
        }
        if name != "plain":
            spec["humanLayer"] = {"webhookSecretFrom": {"secretKeyRef": {"name": "s", "key": "w"}}}
        metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "generation": 1}
        return ContactChannel.model_validate({"metadata": metadata, "spec": spec})


def _never_built(channel: ContactChannel, secrets: Mapping[str, str]) -> Any:
    raise AssertionError("the lookup of this test needs no channel")


@pytest.fixture
def world() -> World:
    return World()


Client = TestClient[Any, Any]


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    async with TestClient(TestServer(build_app(world.hook.build_routes()))) as client:
        yield client


def signed(body: str = BODY, *, secret: str = SECRET, age: float = 0, svix: bool = False) -> dict[str, str]:
    headers = sign(read_key(secret), "msg_1", int(time.time() - age), body.encode())
    return {name.replace("webhook-", "svix-") if svix else name: value for name, value in headers.items()}


async def deliver(
    client: Client, headers: dict[str, str], body: str = BODY, channel: str = "c", namespace: str = "default"
) -> int:
    async with client.post(f"/humanlayer/{namespace}/{channel}", data=body, headers=headers) as response:
        return int(response.status)


@pytest.mark.parametrize("svix", [False, True])
async def test_a_good_signature_has_the_answer_fetched(world: World, client: Client, svix: bool) -> None:
    assert await deliver(client, signed(svix=svix)) == 200
    assert world.looks == [(ObjectRef.of(world.call), "c", "Approval", "ec-1")]
    assert world.refused == []


async def test_a_delivery_that_runs_ahead_of_the_answer_changes_nothing(world: World, client: Client) -> None:
    world.outcome = None
    assert await deliver(client, signed()) == 200


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (lambda: {}, "are required"),
        (lambda: signed(secret="whsec_c29tZXRoaW5nIGVsc2U="), "does not match"),
        (lambda: signed("another body"), "does not match"),
        (lambda: signed(age=302), "five minutes"),
        (lambda: signed(age=-360), "five minutes"),
        (lambda: {**signed(), "webhook-id": "msg_2"}, "does not match"),
    ],
    ids=["unsigned", "forged", "another body", "old", "early", "another id"],
)
async def test_what_is_not_signed_is_refused_and_recorded(
    world: World, client: Client, headers: Callable[[], dict[str, str]], why: str
) -> None:
    assert await deliver(client, headers()) == 401
    assert world.looks == []
    assert len(world.refused) == 1
    assert world.refused[0][0] == "c"
    assert why in world.refused[0][1]


async def test_a_channel_whose_secret_is_missing_believes_nobody(world: World, client: Client) -> None:
    world.secrets = None
    assert await deliver(client, signed()) == 401
    world.secrets = {"k": "key", "w": "whsec_!"}
    assert await deliver(client, signed()) == 401
    assert world.looks == []


async def test_a_call_that_is_asked_through_another_channel_is_not_touched(world: World, client: Client) -> None:
    assert await deliver(client, signed(), channel="other") == 403
    assert world.looks == []
    assert world.refused[0][0] == "other"


@pytest.mark.parametrize(("namespace", "channel"), [("default", "plain"), ("default", "none"), ("other", "c")])
async def test_there_is_no_webhook_elsewhere(world: World, client: Client, namespace: str, channel: str) -> None:
    assert await deliver(client, signed(), namespace=namespace, channel=channel) == 404
    assert world.looks == []


@pytest.mark.parametrize(
    "body", ["not json", "[]", "{}", '{"event": {"call_id": "ec-of-somebody-else"}}', '{"call_id": 7}', "[" * 5000]
)
async def test_what_nobody_waits_for_is_taken_and_forgotten(world: World, client: Client, body: str) -> None:
    assert await deliver(client, signed(body), body) == 200
    assert world.looks == []


async def test_a_delivery_is_sent_again_when_the_answer_cannot_be_fetched(world: World, client: Client) -> None:
    world.outcome = ChannelUnavailableError("away")
    assert await deliver(client, signed()) == 503
    world.secrets_away = True
    assert await deliver(client, signed()) == 503


@pytest.mark.parametrize(
    ("body", "call_id"),
    [(b'{"call_id": "a"}', "a"), (b'{"event": {"call_id": "b"}, "call_id": "a"}', "b"), (b'{"call_id": ""}', None)],
)
def test_the_id_stands_in_the_event_or_in_the_body(body: bytes, call_id: str | None) -> None:
    assert find_call_id(body) == call_id
