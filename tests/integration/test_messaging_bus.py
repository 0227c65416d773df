"""The bus against a real nats-server: what "published once" means there, and how it lives through losses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from nats.js import api

from kubechain_common.messages import ObjectRef, ToolResult
from kubechain_common.messages.topology import STREAMS, TOOL_RESULTS, tool_result_subject
from kubechain_common.messaging import Bus, BusUnavailableError, Claim, PublishOutcome, TopologyError
from kubechain_common.testing.nats_server import NatsServer, run_nats_server

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]

SUBJECT = tool_result_subject("default", "uid-1")
STREAM = TOOL_RESULTS.name


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with run_nats_server(tmp_path) as server:
        yield server


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus.connect(server.url, "test") as bus:
        yield bus


def build_result(content: str = "ok") -> ToolResult:
    return ToolResult(
        call=ObjectRef(namespace="default", name="call", uid="uid-1"), outcome="Succeeded", content=content
    )


async def test_connecting_creates_every_stream_and_bucket(bus: Bus) -> None:
    for spec in STREAMS:
        config = (await bus.connection.js.stream_info(spec.name)).config
        assert config.retention == api.RetentionPolicy.WORK_QUEUE
        assert config.storage == api.StorageType.FILE
        assert tuple(config.subjects) == spec.subjects
    status = await (await bus.connection.js.key_value("KUBECHAIN_STARTED_CALLS")).status()
    assert status.history == 1
    assert status.ttl == timedelta(days=7).total_seconds()
    assert await bus.connection.js.object_store("KUBECHAIN_CLAIMS")


async def test_a_unit_is_published_once_while_it_waits(bus: Bus) -> None:
    assert await bus.publish(SUBJECT, build_result(), msg_id="u") is PublishOutcome.STORED
    assert await bus.publish(SUBJECT, build_result(), msg_id="u") is PublishOutcome.ALREADY_THERE
    assert await bus.publish(SUBJECT, build_result(), msg_id=None) is PublishOutcome.ALREADY_THERE
    info = await bus.connection.js.stream_info(STREAM)
    assert info.state.messages == 1


async def test_a_consumed_unit_is_refused_under_its_id_and_taken_without_one(bus: Bus) -> None:
    await bus.publish(SUBJECT, build_result(), msg_id="u")
    await bus.purge(STREAM, SUBJECT)
    assert await bus.publish(SUBJECT, build_result(), msg_id="u") is PublishOutcome.ALREADY_THERE
    assert not await bus.has_message(STREAM, SUBJECT), "the server's duplicate window swallowed it"
    assert await bus.publish(SUBJECT, build_result(), msg_id=None) is PublishOutcome.STORED
    assert await bus.has_message(STREAM, SUBJECT)


async def test_messages_that_are_not_units_may_share_a_subject(bus: Bus) -> None:
    for _ in range(2):
        outcome = await bus.publish(SUBJECT, build_result(), msg_id=None, once=False)
        assert outcome is PublishOutcome.STORED
    info = await bus.connection.js.stream_info(STREAM)
    assert info.state.messages == 2


async def test_has_message_is_exact(bus: Bus) -> None:
    await bus.publish(f"{SUBJECT}.retrying.1", build_result(), msg_id=None)
    assert not await bus.has_message(STREAM, SUBJECT)
    assert not await bus.has_message(STREAM, tool_result_subject("default", "uid-2"))


async def test_concurrent_publishers_of_one_unit_store_it_once(server: NatsServer, bus: Bus) -> None:
    async with Bus.connect(server.url, "other") as other:
        outcomes = await asyncio.gather(
            *(each.publish(SUBJECT, build_result(), msg_id=None) for each in (bus, other) for _ in range(10))
        )
    assert outcomes.count(PublishOutcome.STORED) == 1


async def test_publishing_into_a_missing_stream_creates_it(bus: Bus) -> None:
    lost: list[str] = []
    bus.on_topology_lost(lambda _: lost.append("lost"))
    await bus.connection.js.delete_stream(STREAM)
    assert await bus.publish(SUBJECT, build_result(), msg_id="u") is PublishOutcome.STORED
    assert lost


async def test_a_process_that_only_publishes_hears_of_a_lost_stream(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    lost: list[str] = []
    bus.on_topology_lost(lambda _: lost.append("lost"))
    async with Bus.connect(server.url, "other") as other:
        await other.connection.js.delete_stream(STREAM)
        await eventually(lambda: bool(lost))
        assert await other.publish(SUBJECT, build_result(), msg_id="u") is PublishOutcome.STORED


async def test_every_process_hears_of_a_lost_storage_whoever_makes_it_anew(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    lost: list[str] = []
    bus.on_topology_lost(lambda _: lost.append("first"))
    async with Bus.connect(server.url, "other") as other:
        other.on_topology_lost(lambda _: lost.append("second"))
        await server.lose_storage()
        await eventually(lambda: {"first", "second"} <= set(lost))
        assert await other.publish(SUBJECT, build_result(), msg_id="u") is PublishOutcome.STORED


async def test_a_restart_that_keeps_the_storage_is_not_a_loss(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    heard: list[str] = []
    bus.on_topology_lost(lambda _: heard.append("lost"))
    bus.on_reconnect(lambda: heard.append("reconnected"))
    await bus.publish(SUBJECT, build_result(), msg_id="u")
    await server.kill()
    await server.start()
    await eventually(lambda: "reconnected" in heard)
    assert heard == ["reconnected"]
    assert await bus.has_message(STREAM, SUBJECT)


async def test_a_callback_that_was_unregistered_is_not_called(bus: Bus, eventually: Eventually) -> None:
    lost: list[str] = []
    bus.on_topology_lost(lambda _: lost.append("lost"))
    unregister = bus.on_topology_lost(lambda _: lost.append("gone"))
    unregister()
    await bus.connection.js.delete_stream(STREAM)
    await eventually(lambda: bool(lost))
    assert "gone" not in lost


async def test_a_callback_that_fails_does_not_keep_others_from_being_called(bus: Bus, eventually: Eventually) -> None:
    lost: list[str] = []

    def fail(_: frozenset[str]) -> None:
        raise RuntimeError("boom")

    bus.on_topology_lost(fail)
    bus.on_topology_lost(lambda _: lost.append("lost"))
    await bus.connection.js.delete_stream(STREAM)
    await eventually(lambda: bool(lost))


async def test_without_a_server_publishing_says_so_and_is_retryable(
    server: NatsServer, bus: Bus, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    await server.kill()
    await eventually(lambda: not bus.connected)
    ready = bus.connection.ready
    monkeypatch.setattr(bus.connection, "ready", lambda: ready(0.1))
    with pytest.raises(BusUnavailableError, match="NATS cannot be reached") as caught:
        await bus.publish(SUBJECT, build_result(), msg_id="u")
    assert caught.value.retryable


async def test_publish_until_stored_outlasts_an_outage(
    server: NatsServer, bus: Bus, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    await server.kill()
    await eventually(lambda: not bus.connected)
    ready, attempts = bus.connection.ready, 0

    async def counted() -> None:
        nonlocal attempts
        attempts += 1
        await ready(0.05)

    monkeypatch.setattr(bus.connection, "ready", counted)
    async with asyncio.TaskGroup() as group:
        publishing = group.create_task(bus.publish_until_stored(SUBJECT, build_result(), trace=None))
        await eventually(lambda: attempts >= 3)
        await server.start()
    assert publishing.result() is PublishOutcome.STORED
    assert await bus.has_message(STREAM, SUBJECT)
    await bus.purge(STREAM, SUBJECT)
    replacing = bus.publish_until_stored(SUBJECT, build_result(), trace=None)
    assert await replacing is PublishOutcome.STORED, "the one that was lost does not stand in its way"


async def test_connecting_waits_for_a_server_that_comes_late(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)

    async def publish() -> PublishOutcome:
        async with Bus.connect(server.url, "early") as bus:
            return await bus.publish(SUBJECT, build_result(), msg_id="u")

    async with asyncio.TaskGroup() as group:
        publishing = group.create_task(publish())
        await server.start()
    await server.kill()
    assert publishing.result() is PublishOutcome.STORED


async def test_waiting_for_a_server_can_be_cancelled(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), Bus.connect(server.url, "early"):
            pytest.fail("there is no server")


async def test_an_error_in_the_body_arrives_as_it_is(server: NatsServer) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with Bus.connect(server.url, "test"):
            raise LookupError("mine")


async def test_a_payload_over_the_limit_is_stored_once_and_twice_publishing_leaves_no_orphan(tmp_path: Path) -> None:
    async with run_nats_server(tmp_path, "max_payload: 64KB") as server, Bus.connect(server.url, "test") as bus:
        big = build_result("x" * 300_000)
        assert await bus.publish(SUBJECT, big, msg_id=None) is PublishOutcome.STORED
        stored = (await bus.connection.js.stream_info("OBJ_KUBECHAIN_CLAIMS")).state.bytes
        assert await bus.publish(SUBJECT, big, msg_id=None) is PublishOutcome.ALREADY_THERE
        left = (await bus.connection.js.stream_info("OBJ_KUBECHAIN_CLAIMS")).state.bytes
        assert left - stored < 2048, "nothing but a tombstone"


async def test_a_payload_at_the_limit_needs_no_claim(tmp_path: Path) -> None:
    async with run_nats_server(tmp_path, "max_payload: 64KB") as server, Bus.connect(server.url, "test") as bus:
        frame = len(build_result("").model_dump_json(by_alias=True, exclude_none=True))
        await bus.publish(SUBJECT, build_result("x" * (64 * 1024 - 4096 - frame)), msg_id="m" * 200)
        assert (await bus.connection.js.stream_info("OBJ_KUBECHAIN_CLAIMS")).state.messages == 0


async def test_a_lost_bucket_of_payloads_is_made_again(bus: Bus) -> None:
    await bus.connection.js.delete_object_store("KUBECHAIN_CLAIMS")
    big = build_result("x" * 2_000_000)
    assert await bus.publish(SUBJECT, big, msg_id=None) is PublishOutcome.STORED


async def test_deleting_and_purging_what_is_not_there_is_no_error(bus: Bus) -> None:
    await bus.delete_consumer(STREAM, "nobody")
    await bus.purge(STREAM, SUBJECT)
    await bus.connection.js.delete_stream(STREAM)
    await bus.delete_consumer(STREAM, "nobody")


async def test_limits_that_an_operator_gave_a_stream_are_kept(server: NatsServer) -> None:
    async with Bus.connect(server.url, "test") as bus:
        config = (await bus.connection.js.stream_info(STREAM)).config
        config.max_bytes = 10_000_000
        config.subjects = ["kubechain.tool.result.old.>"]
        await bus.connection.js.update_stream(config)
    async with Bus.connect(server.url, "test") as bus:
        config = (await bus.connection.js.stream_info(STREAM)).config
    assert config.max_bytes == 10_000_000
    assert config.subjects == ["kubechain.tool.result.>"], "what our messages need is ours to set"


async def test_a_foreign_stream_of_our_name_is_reported(server: NatsServer) -> None:
    client = await nats.connect(server.url)
    await client.jetstream().add_stream(name=STREAM, subjects=["kubechain.tool.result.>"])
    await client.close()
    with pytest.raises(TopologyError, match="exists with retention limits"):
        async with Bus.connect(server.url, "test"):
            pytest.fail("it is not ours")


async def test_a_call_is_claimed_by_the_first_only(server: NatsServer, bus: Bus) -> None:
    async with Bus.connect(server.url, "other") as other:
        claims = await asyncio.gather(*(each.started_calls.claim("call-1") for each in (bus, other) for _ in range(5)))
    assert (claims.count(Claim.GRANTED), claims.count(Claim.TAKEN)) == (1, 9)
    assert await bus.started_calls.claim("call-2") is Claim.GRANTED


async def test_a_holder_is_granted_its_own_claim_again(bus: Bus) -> None:
    calls = bus.started_calls
    claims = [await calls.claim("call-1", holder=uid) for uid in ("a", "a", "b", "a")]
    assert claims == [Claim.GRANTED, Claim.GRANTED, Claim.TAKEN, Claim.GRANTED]
    assert await calls.claim("call-1") is Claim.TAKEN
    assert not await calls.forbid("call-1")
    assert await calls.forbid("call-2")
    assert await calls.claim("call-2", holder="a") is Claim.CANCELLED


async def test_claims_survive_a_restart_and_the_bucket_keeps_its_age(server: NatsServer, bus: Bus) -> None:
    assert await bus.started_calls.claim("call-1") is Claim.GRANTED
    created = await bus.started_calls.created_at()
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)
    await server.kill()
    await server.start()
    assert await bus.started_calls.claim("call-1") is Claim.TAKEN
    assert await bus.started_calls.created_at() == created


async def test_a_lost_bucket_of_claims_shows_in_its_age(server: NatsServer, bus: Bus) -> None:
    assert await bus.started_calls.claim("call-1") is Claim.GRANTED
    before = await bus.started_calls.created_at()
    await server.lose_storage()
    assert await bus.started_calls.claim("call-1") is Claim.GRANTED, "nobody remembers"
    assert await bus.started_calls.created_at() > before, "and the age says so"


async def test_a_deleted_bucket_of_claims_is_made_again(bus: Bus) -> None:
    await bus.connection.js.delete_key_value("KUBECHAIN_STARTED_CALLS")
    assert await bus.started_calls.claim("call-1") is Claim.GRANTED
    await bus.connection.js.delete_key_value("KUBECHAIN_STARTED_CALLS")
    assert await bus.started_calls.created_at()
