"""human-bridge against the real API server and NATS, with a HumanLayer of the test's own; the test is the
toolcall-controller."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer, unused_port
from tests.e2e.support.humanlayer import API_KEY, Failure, HumanLayer

from kubechain_common.api.names import external_call_id, external_run_id
from kubechain_common.api.v1alpha1 import ContactChannel, Task, TaskRunToolCall
from kubechain_common.kube.client import MERGE_PATCH, KubeClient
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.messages import ObjectRef
from kubechain_common.messages.human import HumanRequest, HumanResult
from kubechain_common.messages.topology import (
    ANSWER_CHECKS,
    HUMAN_REQUESTS,
    HUMAN_RESULTS,
    human_request_subject,
    human_result_subject,
)
from kubechain_common.messaging import Bus
from kubechain_common.runtime.clock import now
from kubechain_common.runtime.health import Health
from kubechain_common.runtime.service import ServiceContext
from kubechain_common.runtime.settings import ServiceSettings
from kubechain_common.testing.nats_server import NatsServer, run_nats_server
from kubechain_human_bridge.bridge import ASKS_AT_ONCE, Bridge
from kubechain_human_bridge.channels.standard_webhooks import read_key, sign
from kubechain_human_bridge.settings import BridgeSettings

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]
Kubectl = Callable[..., Any]

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
API = "kubechain.humanlayer.dev/v1alpha1"


@dataclass
class World:
    """One namespace, a bus, a HumanLayer, and as many bridges as a test starts."""

    kube: KubeClient
    bus: Bus
    namespace: str
    humanlayer: HumanLayer
    humanlayer_url: str
    eventually: Eventually
    port: int = field(default_factory=unused_port)

    @asynccontextmanager
    async def bridge(self, *, drained: bool = True) -> AsyncIterator[Health]:
        """A bridge, as its checks tell of it; at the end it is asked to stop, or breaks off as in a crash."""
        settings = ServiceSettings(watch_namespace=self.namespace, namespace=self.namespace, drain_seconds=5)
        recorder, stopping, health = EventRecorder(self.kube, "human-bridge"), asyncio.Event(), Health()
        context = ServiceContext(settings, self.kube, self.bus, recorder, health, stopping, settings.identity())
        bridge = Bridge(context, BridgeSettings(host="127.0.0.1", port=self.port, humanlayer_url=self.humanlayer_url))
        async with asyncio.TaskGroup() as group:
            recording = group.create_task(recorder.run())
            running = group.create_task(bridge.run())
            yield health
            if drained:
                stopping.set()
                await running
            else:
                running.cancel()
                await asyncio.wait([running])
            assert await recorder.flush(20.0)
            recording.cancel()

    async def create_secret(self, name: str = "humanlayer", **data: str) -> None:
        await self.kube.request(
            "POST",
            f"/api/v1/namespaces/{self.namespace}/secrets",
            body={"metadata": {"name": name}, "stringData": data},
        )

    async def set_secret(self, **data: str) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/secrets/humanlayer"
        await self.kube.request("PATCH", path, body={"stringData": data}, content_type=MERGE_PATCH)

    async def create_channel(self, name: str = "approval-channel", **spec: Any) -> ContactChannel:
        full = {
            "type": "email",
            "apiKeyFrom": {"secretKeyRef": {"name": "humanlayer", "key": "HUMANLAYER_API_KEY"}},
            "email": {"address": "approver@example.com", "subject": "Approval Request from Kubechain"},
            **spec,
        }
        return await self.kube.create(
            ContactChannel.model_validate(
                {
                    "apiVersion": API,
                    "kind": "ContactChannel",
                    "metadata": {"name": name, "namespace": self.namespace},
                    "spec": {key: value for key, value in full.items() if value is not None},
                }
            )
        )

    async def get_channel(self, name: str = "approval-channel") -> ContactChannel:
        return await self.kube.get(ContactChannel, self.namespace, name)

    async def wait_ready(self, name: str = "approval-channel") -> ContactChannel:
        async def ready() -> bool:
            return (await self.get_channel(name)).status.ready

        await self.eventually(ready)
        return await self.get_channel(name)

    async def create_waiting_call(self, name: str, *, contact: bool = False) -> TaskRunToolCall:
        """A Task and its call, which waits for a person as toolcall-controller would write it."""
        task = await self.kube.create(
            Task.model_validate(
                {
                    "apiVersion": API,
                    "kind": "Task",
                    "metadata": {"name": f"task-of-{name}", "namespace": self.namespace},
                    "spec": {"agentRef": {"name": "agent"}, "userMessage": "Write me a haiku"},
                }
            )
        )
        spec = {
            "toolCallId": "call_1",
            "taskRunRef": {"name": task.name},
            "toolRef": {"name": "expert__human_contact_email" if contact else "fetch__fetch"},
            "toolType": "HumanContact" if contact else "MCP",
            "target": {"name": "approval-channel"} if contact else {"name": "fetch", "tool": "fetch"},
            "arguments": json.dumps({"message": "Which year?"} if contact else {"url": "https://swapi.dev/2"}),
        }
        call = await self.kube.create(
            TaskRunToolCall.model_validate(
                {
                    "apiVersion": API,
                    "kind": "TaskRunToolCall",
                    "metadata": {
                        "name": name,
                        "namespace": self.namespace,
                        "ownerReferences": [task.build_owner_reference().to_wire()],
                    },
                    "spec": spec,
                }
            )
        )
        status = {
            "phase": "Pending",
            "status": "AwaitingHumanInput" if contact else "AwaitingHumanApproval",
            "externalCallID": external_call_id(self.namespace, name, call.uid),
            "startTime": now().isoformat(),
        }
        return await self.kube.update_status(call, status)

    async def mark_asked(self, call: TaskRunToolCall) -> None:
        condition = {
            "type": "HumanAsked",
            "status": "True",
            "reason": "HumanLayerRequestSent",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        latest = await self.kube.get(TaskRunToolCall, self.namespace, call.name)
        await self.kube.update_status(latest, latest.status.to_wire() | {"conditions": [condition]})

    async def create_server(self, channel: str = "approval-channel") -> None:
        path = f"/apis/{API}/namespaces/{self.namespace}/mcpservers"
        spec = {"transport": "stdio", "command": "true", "approvalContactChannel": {"name": channel}}
        await self.kube.request(
            "POST", path, body={"apiVersion": API, "kind": "MCPServer", "metadata": {"name": "fetch"}, "spec": spec}
        )

    async def ask(
        self, call: TaskRunToolCall, channel: ContactChannel, *, requested_at: datetime | None = None
    ) -> None:
        task_uid = call.metadata.owner_references[0].uid
        request = HumanRequest(
            call=ObjectRef.of(call),
            channel=ObjectRef.of(channel),
            kind="Contact" if call.spec.tool_type == "HumanContact" else "Approval",
            external_call_id=call.status.external_call_id,
            run_id=external_run_id(task_uid),
            requested_at=requested_at or now(),
        )
        await self.bus.publish(human_request_subject(channel.uid, call.namespace, call.uid), request, msg_id=None)

    async def read_result(self, call: TaskRunToolCall) -> HumanResult | None:
        """What the bridge reported, and left in the stream."""
        subject = human_result_subject(call.namespace, call.uid)
        if not await self.bus.has_message(HUMAN_RESULTS.name, subject):
            return None
        message = await self.bus.connection.js.get_last_msg(HUMAN_RESULTS.name, subject)
        return HumanResult.model_validate_json(message.data or b"")

    async def wait_result(self, call: TaskRunToolCall, *, within: float = 10.0) -> HumanResult:
        async def there() -> bool:
            return await self.read_result(call) is not None

        await self.eventually(there, within=within)
        result = await self.read_result(call)
        assert result is not None
        return result

    async def get_call(self, call: TaskRunToolCall) -> TaskRunToolCall:
        return await self.kube.get(TaskRunToolCall, self.namespace, call.name)

    async def wait_answered(self, call: TaskRunToolCall, *, within: float = 15.0) -> TaskRunToolCall:
        async def answered() -> bool:
            spec = (await self.get_call(call)).spec
            return spec.decision is not None or spec.response is not None

        await self.eventually(answered, within=within)
        return await self.get_call(call)

    async def find_events(self, name: str) -> list[tuple[str, str]]:
        path = f"/api/v1/namespaces/{self.namespace}/events"
        events = (await self.kube.request("GET", path))["items"]
        return [(e["reason"], e["message"]) for e in events if e["involvedObject"]["name"] == name]

    async def deliver(self, call_id: str, secret: str = WEBHOOK_SECRET, channel: str = "approval-channel") -> int:
        """What HumanLayer would send to the channel's webhook; the status of the reply."""
        event = {"run_id": "r", "call_id": call_id, "status": {"approved": True}}
        body = json.dumps({"type": "function_call.completed", "event": event}).encode()
        headers = sign(read_key(secret), "msg_1", int(time.time()), body)
        url = f"http://127.0.0.1:{self.port}/humanlayer/{self.namespace}/{channel}"
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
            return response.status


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with run_nats_server(tmp_path) as server:
        yield server


@pytest.fixture
async def humanlayer() -> AsyncIterator[tuple[HumanLayer, str]]:
    api = HumanLayer()
    server = TestServer(api.build_app())
    await server.start_server()
    yield api, str(server.make_url("")).rstrip("/")
    await server.close()


@pytest.fixture
async def world(
    kubectl: Kubectl,
    kube: KubeClient,
    namespace: str,
    server: NatsServer,
    humanlayer: tuple[HumanLayer, str],
    eventually: Eventually,
) -> AsyncIterator[World]:
    async with Bus.connect(server.url, "human-bridge-test") as bus:
        yield World(kube, bus, namespace, *humanlayer, eventually)


async def test_is_ready_once_channels_calls_and_the_key_of_the_links_are_known(world: World) -> None:
    async with world.bridge() as health:
        assert await health.failing() == ["channel-informer", "call-informer", "link-key"]

        async def is_ready() -> bool:
            return not await health.failing()

        await world.eventually(is_ready)


async def test_a_channel_heals_with_its_secret(world: World) -> None:
    await world.create_channel()
    async with world.bridge():

        async def detail() -> str:
            return (await world.get_channel()).status.status_detail

        async def says(sentence: str) -> bool:
            return sentence in await detail()

        missing = f'Secret "humanlayer" not found in namespace "{world.namespace}": create it with key'
        await world.eventually(lambda: says(missing))
        await world.create_secret(HUMANLAYER_API_KEY="wrong")
        await world.eventually(lambda: says("invalid HumanLayer API key"))
        assert not (await world.get_channel()).status.ready
        await world.set_secret(HUMANLAYER_API_KEY=API_KEY)
        channel = await world.wait_ready()
    assert channel.status.status_detail == "HumanLayer email channel validated successfully"
    events = await world.find_events(channel.name)
    assert [reason for reason, _ in events] == [
        "Initializing",
        "SecretValidationFailed",
        "ValidationFailed",
        "ValidationSucceeded",
    ]
    assert {seen.method for seen in world.humanlayer.seen} == {"GET"}


async def test_a_person_is_asked_once_and_the_answer_reaches_the_call(world: World) -> None:
    await world.create_secret(HUMANLAYER_API_KEY=API_KEY)
    channel = await world.create_channel()
    async with world.bridge():
        approved = await world.create_waiting_call("approved-call.with.dots")
        rejected = await world.create_waiting_call("rejected-call")
        answered = await world.create_waiting_call("question", contact=True)
        for call in (approved, rejected, answered):
            await world.ask(call, channel)
            result = await world.wait_result(call)
            assert (result.outcome, result.reason) == ("Sent", "HumanLayerRequestSent")
            assert result.message == "HumanLayer request sent"
        world.humanlayer.approve(approved.status.external_call_id)
        world.humanlayer.reject(rejected.status.external_call_id, "Not on a Sunday")
        world.humanlayer.respond(answered.status.external_call_id, "1977")
        decision = (await world.wait_answered(approved)).spec.decision
        refusal = (await world.wait_answered(rejected)).spec.decision
        response = (await world.wait_answered(answered)).spec.response

        async def no_checks() -> bool:
            return not await world.bus.find_subjects(ANSWER_CHECKS.name, "kubechain.answer.check.>")

        await world.eventually(no_checks)
    assert decision is not None
    assert (decision.approved, decision.by, decision.via) == (True, "humanlayer:approver@example.com", "humanlayer")
    assert refusal is not None
    assert (refusal.approved, refusal.comment) == (False, "Not on a Sunday")
    assert response is not None
    assert (response.message, response.by) == ("1977", "humanlayer:expert@example.com")
    assert len(world.humanlayer.posts()) == 3
    sent = world.humanlayer.posts(approved.status.external_call_id)[0].body["spec"]
    assert sent["kwargs"] == {"url": "https://swapi.dev/2"}
    assert sent["channel"]["email"]["experimental_subject_line"] == "Approval Request from Kubechain"
    assert not await world.bus.find_subjects(HUMAN_REQUESTS.name, "kubechain.human.request.>")


async def test_nobody_is_asked_about_a_call_that_does_not_wait(world: World) -> None:
    await world.create_secret(HUMANLAYER_API_KEY=API_KEY)
    channel = await world.create_channel()
    decided = await world.create_waiting_call("decided")
    await world.kube.patch(
        TaskRunToolCall, world.namespace, decided.name, {"spec": {"decision": {"approved": True, "by": "alice"}}}
    )
    deleted = await world.create_waiting_call("deleted")
    await world.kube.delete(TaskRunToolCall, world.namespace, deleted.name)
    asked = await world.create_waiting_call("asked-before")
    await world.mark_asked(asked)
    for call in (decided, deleted, asked):
        await world.ask(call, channel)
    async with world.bridge():
        assert (await world.wait_result(decided)).outcome == "Dropped"
        assert (await world.wait_result(deleted)).outcome == "Dropped"

        async def taken() -> bool:
            return not await world.bus.find_subjects(HUMAN_REQUESTS.name, "kubechain.human.request.>")

        await world.eventually(taken)
    assert await world.read_result(asked) is None
    assert world.humanlayer.posts() == []


async def test_a_request_that_arrived_unnoticed_is_found_and_not_sent_again(world: World) -> None:
    await world.create_secret(HUMANLAYER_API_KEY=API_KEY)
    channel = await world.create_channel()
    world.humanlayer.fail(Failure(502, "POST", taken=True))
    call = await world.create_waiting_call("call")
    await world.ask(call, channel)
    async with world.bridge():
        assert (await world.wait_result(call)).outcome == "Sent"
    assert len(world.humanlayer.posts()) == 1


async def test_a_bridge_that_dies_while_it_asks_leaves_one_request(world: World) -> None:
    await world.create_secret(HUMANLAYER_API_KEY=API_KEY)
    channel = await world.create_channel()
    call = await world.create_waiting_call("call")
    world.humanlayer.hold_replies()
    async with world.bridge(drained=False):
        await world.ask(call, channel)
        await world.eventually(lambda: bool(world.humanlayer.posts()))
    world.humanlayer.release_replies()
    assert await world.read_result(call) is None
    async with world.bridge():
        assert (await world.wait_result(call, within=20.0)).outcome == "Sent"
    assert len(world.humanlayer.posts()) == 1


async def test_nobody_is_asked_twice_though_the_claims_were_lost(world: World, server: NatsServer) -> None:
    """The broker came back empty after the person was asked, and before anybody wrote so."""
    await world.create_secret(HUMANLAYER_API_KEY=API_KEY)
    channel = await world.create_channel()
    call, requested_at = await world.create_waiting_call("call"), now()
    async with world.bridge():
        await world.ask(call, channel, requested_at=requested_at)
        await world.wait_result(call)
        await server.lose_storage()
        await world.ask(call, channel, requested_at=requested_at)
        assert (await world.wait_result(call, within=20.0)).outcome == "Sent"
    assert len(world.humanlayer.posts()) == 1


async def test_requests_that_are_refused_keep_no_later_one_from_being_sent(world: World) -> None:
    await world.create_secret(HUMANLAYER_API_KEY=API_KEY)
    channel = await world.create_channel()
    refused = ASKS_AT_ONCE + 1
    world.humanlayer.fail(*[Failure(403, method="POST")] * refused)
    async with world.bridge():
        await world.wait_ready()
        for n in range(refused):
            await world.ask(await world.create_waiting_call(f"refused-{n}"), channel)
        await world.eventually(lambda: len(world.humanlayer.posts()) == refused)
        call = await world.create_waiting_call("call")
        await world.ask(call, channel)
        assert (await world.wait_result(call)).outcome == "Sent"


async def test_the_answer_is_found_though_the_checks_were_lost(world: World) -> None:
    await world.create_secret(HUMANLAYER_API_KEY=API_KEY)
    channel = await world.create_channel()
    await world.create_server()
    async with world.bridge():
        call = await world.create_waiting_call("call")
        await world.ask(call, channel)
        await world.wait_result(call)
        await world.mark_asked(call)
    await world.bus.purge(ANSWER_CHECKS.name, "kubechain.answer.check.>")
    world.humanlayer.approve(call.status.external_call_id)
    async with world.bridge():
        assert (await world.wait_answered(call)).spec.decision is not None


async def test_a_signed_webhook_makes_it_instant(world: World) -> None:
    await world.create_secret(HUMANLAYER_API_KEY=API_KEY, WEBHOOK=WEBHOOK_SECRET)
    webhook = {"webhookSecretFrom": {"secretKeyRef": {"name": "humanlayer", "key": "WEBHOOK"}}}
    channel = await world.create_channel(humanLayer=webhook)
    other = await world.create_channel("other-channel", humanLayer=webhook)
    await world.create_server()
    async with world.bridge():
        call = await world.create_waiting_call("call")
        call_id = call.status.external_call_id
        await world.ask(call, channel)
        await world.wait_result(call)
        # The body says that the call was approved; HumanLayer itself does not.
        assert await world.deliver(call_id) == 200
        assert (await world.get_call(call)).spec.decision is None
        world.humanlayer.reject(call_id, "No")
        assert await world.deliver(call_id, secret="whsec_c29tZXRoaW5nIGVsc2U=") == 401
        assert await world.deliver(call_id, channel=other.name) == 403
        assert await world.deliver(call_id, channel="no-channel") == 404
        assert (await world.get_call(call)).spec.decision is None
        assert await world.deliver(call_id) == 200
        decision = (await world.get_call(call)).spec.decision
    assert decision is not None
    assert not decision.approved
    for name in (channel.name, other.name):
        assert "DecisionRefused" in [reason for reason, _ in await world.find_events(name)]


async def test_what_a_deleted_channel_leaves_is_removed(world: World) -> None:
    await world.create_secret(HUMANLAYER_API_KEY="wrong")
    channel = await world.create_channel()
    async with world.bridge():
        call = await world.create_waiting_call("call")
        await world.ask(call, channel)
        await world.eventually(lambda: bool(world.humanlayer.posts()))
        await world.kube.delete(ContactChannel, world.namespace, channel.name)

        async def gone() -> bool:
            return not await world.bus.find_subjects(HUMAN_REQUESTS.name, "kubechain.human.request.>")

        await world.eventually(gone)
    assert await world.read_result(call) is None
