"""The bus at its limits, against a real nats-server: a full stream or store refuses, says so, and takes again later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kubechain_common.messages import ObjectRef, ToolRequest
from kubechain_common.messages.topology import CLAIMS_STREAM, TOOL_REQUESTS, tool_request_subject
from kubechain_common.messaging import Bus, BusFullError, Claim, PublishOutcome
from kubechain_common.runtime.bus_trouble import describe
from kubechain_common.testing.nats_server import NatsServer, run_nats_server

pytestmark = pytest.mark.integration


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with run_nats_server(tmp_path) as server:
        yield server


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus.connect(server.url, "test") as bus:
        yield bus


async def publish(bus: Bus, uid: str, arguments: str = "{}") -> PublishOutcome:
    request = ToolRequest(
        call=ObjectRef(namespace="default", name="call", uid=uid),
        execution_key=f"default/{uid}",
        server=ObjectRef(namespace="default", name="fetch", uid="server-1"),
        tool="fetch",
        arguments=arguments,
        requested_at=datetime(2026, 11, 24, tzinfo=UTC),
    )
    return await bus.publish(tool_request_subject("server-1", "default", uid), request, msg_id=uid)


async def limit(bus: Bus, stream: str, **limits: Any) -> None:
    config = (await bus.connection.js.stream_info(stream)).config
    for name, value in limits.items():
        setattr(config, name, value)
    await bus.connection.js.update_stream(config)


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"max_msgs": 1}, "maximum messages exceeded"), ({"max_bytes": 400}, "maximum bytes exceeded")],
)
async def test_a_full_stream_refuses_with_its_reason_and_takes_again_when_there_is_room(
    bus: Bus, limits: dict[str, int], words: str
) -> None:
    await limit(bus, TOOL_REQUESTS.name, **limits)
    await publish(bus, "c1")
    with pytest.raises(BusFullError, match=words) as caught:
        await publish(bus, "c2")
    assert caught.value.retryable
    assert describe(caught.value).reason == "MessageBusFull"
    assert await bus.has_message(TOOL_REQUESTS.name, tool_request_subject("server-1", "default", "c1")), "nothing lost"
    await limit(bus, TOOL_REQUESTS.name, **dict.fromkeys(limits, -1))
    assert await publish(bus, "c2") is PublishOutcome.STORED, "a refused publish must not count as a duplicate"


async def test_a_server_without_storage_says_so(tmp_path: Path) -> None:
    async def fill(bus: Bus) -> None:
        for index in range(100):
            await publish(bus, f"c{index}", "x" * 10_000)

    config = "jetstream { max_file_store: 100000 }"
    async with run_nats_server(tmp_path, config) as server, Bus.connect(server.url, "test") as bus:
        with pytest.raises(BusFullError):
            await fill(bus)


async def test_a_full_object_store_says_so_and_leaves_no_half_payload(tmp_path: Path) -> None:
    async with run_nats_server(tmp_path, "max_payload: 16384") as server, Bus.connect(server.url, "test") as bus:
        await limit(bus, CLAIMS_STREAM, max_bytes=30_000)
        with pytest.raises(BusFullError, match="maximum bytes exceeded"):
            await publish(bus, "c1", "x" * 100_000)
        assert (await bus.connection.js.stream_info(CLAIMS_STREAM)).state.messages == 0
        await limit(bus, CLAIMS_STREAM, max_bytes=-1)
        assert await publish(bus, "c1", "x" * 100_000) is PublishOutcome.STORED


async def test_streams_that_would_drop_the_oldest_work_are_mended(server: NatsServer, bus: Bus) -> None:
    await limit(bus, TOOL_REQUESTS.name, discard="old", max_msgs=1)
    async with Bus.connect(server.url, "newer version"):
        config = (await bus.connection.js.stream_info(TOOL_REQUESTS.name)).config
    assert (config.discard, config.max_msgs) == ("new", 1)


async def test_a_call_is_cancelled_once_and_for_all(bus: Bus) -> None:
    late = datetime(2100, 1, 1, tzinfo=UTC)
    assert await bus.started_calls.cancel("default/c1", late)
    assert await bus.started_calls.cancel("default/c1", late), "asked again after a crash, the answer is the same"
    assert await bus.started_calls.claim("default/c1") is Claim.CANCELLED, "it never starts"
    assert await bus.started_calls.forbid("default/c1")


async def test_a_call_that_has_started_is_known_to_have(bus: Bus) -> None:
    assert await bus.started_calls.claim("default/c1") is Claim.GRANTED
    assert not await bus.started_calls.forbid("default/c1")
    assert not await bus.started_calls.cancel("default/c1", datetime(2100, 1, 1, tzinfo=UTC))


async def test_a_call_older_than_the_record_may_have_started(bus: Bus) -> None:
    assert not await bus.started_calls.cancel("default/c1", datetime(2020, 1, 1, tzinfo=UTC))
