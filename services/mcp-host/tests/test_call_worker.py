"""Requests in, results out, over a real NATS: the pool, the workers and the handler together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from host_testbed import Host, run_host
from mcp_testbed import FAST, PATIENCE, eventually, plain_server

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.messages import ToolRequest
from kubechain_common.messages.topology import mcp_consumer, tool_request_subject, tool_result_subject
from kubechain_common.messaging import Claim, Consumer
from kubechain_common.testing.nats_server import NatsServer
from kubechain_mcp_host.calls import worker as call_worker

pytestmark = pytest.mark.integration


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Host, NatsServer]]:
    async with run_host(tmp_path) as it:
        yield it


@pytest.fixture
def host(served: tuple[Host, NatsServer]) -> Host:
    return served[0]


async def test_a_request_is_answered(host: Host) -> None:
    server = plain_server()
    host.change("added", server)
    await host.request(server, "echo", '{"text": "hi"}')
    result = await host.result()
    assert (result.outcome, result.content, result.call.name) == ("Succeeded", "hi", "the-call")
    assert await host.bus.started_calls.claim("default/call-1") is Claim.TAKEN


async def test_servers_do_not_hold_up_each_other(host: Host) -> None:
    slow, quick = plain_server("--mute"), plain_server()
    quick.metadata.uid, quick.metadata.name = "uid-quick", "quick"
    host.change("added", slow)
    host.change("added", quick)
    await host.request(slow, "echo", uid="call-slow")
    await host.request(quick, "echo", '{"text": "hi"}', uid="call-quick")
    assert (await host.result("call-quick")).content == "hi"
    assert "call-slow" not in host.results
    host.change("deleted", slow)
    assert (await host.result("call-slow")).error == 'MCPServer "plain" was deleted.'


async def test_a_replica_that_still_connects_takes_nothing(tmp_path: Path) -> None:
    async with run_host(tmp_path, timing=replace(FAST, stdio_connect=2.0, first_retry=60.0)) as (host, _):
        server = plain_server("--mute")
        host.change("added", server)
        await host.request(server, "echo")
        await until(lambda: has_consumer(host, server))
        assert error_of(host, server) == "the server did not answer within 2 seconds."


async def test_what_has_not_begun_when_the_replica_stops_is_handed_over_at_once(host: Host) -> None:
    server = plain_server()
    server.spec.command = "no-such-command"
    host.change("added", server)
    await until(lambda: has_consumer(host, server))
    await host.request(server, "echo")
    await until(lambda: pending_acks(host, server))
    host.stopping.set()
    other = Consumer(host.bus, mcp_consumer(server.uid, 16), ToolRequest, host.take_request, concurrency=1)
    stopping = asyncio.Event()
    async with asyncio.timeout(9), asyncio.TaskGroup() as group:  # less than the consumer's ack_wait
        group.create_task(other.run(stopping))
        await eventually(lambda: host.requests)
        stopping.set()
    assert await host.bus.started_calls.claim("default/call-1") is Claim.GRANTED


async def test_a_call_that_runs_when_the_replica_stops_is_answered(host: Host) -> None:
    server = plain_server()
    host.change("added", server)
    await host.request(server, "slow", '{"seconds": 1}')
    await eventually(lambda: is_running(host, server))
    host.stopping.set()
    assert (await host.result()).content == "slept"


async def test_a_claim_by_another_host_makes_the_outcome_unknown(host: Host) -> None:
    server = plain_server()
    await host.bus.started_calls.claim("default/call-1")
    host.change("added", server)
    await host.request(server, "pid")
    assert (await host.result()).reason == "OutcomeUnknown"


async def test_a_call_that_was_cancelled_before_it_began_is_answered_so(host: Host) -> None:
    server = plain_server(onLostExecution="Retry")
    assert await host.bus.started_calls.forbid("default/call-1")
    host.change("added", server)
    await host.request(server, "pid")
    result = await host.result()
    assert (result.reason, result.started_at) == ("Cancelled", None)


async def test_a_result_that_is_there_already_is_not_replaced(tmp_path: Path) -> None:
    async with run_host(tmp_path, collect=False) as (host, _):
        server = plain_server()
        host.change("added", server)
        await host.request(server, "pid")
        subject = tool_result_subject("default", "call-1")
        await until(lambda: host.bus.has_message("KUBECHAIN_TOOL_RESULTS", subject))
        await until_not(
            lambda: host.bus.has_message(
                "KUBECHAIN_TOOL_REQUESTS", tool_request_subject(server.uid, "default", "call-1")
            )
        )
        await host.request(server, "pid")
        await until_not(
            lambda: host.bus.has_message(
                "KUBECHAIN_TOOL_REQUESTS", tool_request_subject(server.uid, "default", "call-1")
            )
        )
        info = await host.bus.connection.js.stream_info("KUBECHAIN_TOOL_RESULTS")
        assert info.state.messages == 1


async def test_a_result_lost_with_the_storage_is_remembered(served: tuple[Host, NatsServer]) -> None:
    host, nats = served
    server = plain_server()
    host.change("added", server)
    await host.request(server, "pid")
    first = await host.result()
    host.results.clear()
    await nats.lose_storage()
    await until(lambda: connected(host))
    await host.request(server, "pid")
    assert await host.result(seconds=20.0) == first


async def test_a_call_that_runs_through_a_loss_of_storage_is_answered_once(served: tuple[Host, NatsServer]) -> None:
    host, nats = served
    server = plain_server()
    host.change("added", server)
    await host.request(server, "slow", '{"seconds": 1}')
    await eventually(lambda: is_running(host, server))
    await nats.lose_storage()
    await until(lambda: connected(host))
    await host.request(server, "slow", '{"seconds": 1}')
    result = await host.result(seconds=20.0)
    assert result.content == "slept"


async def test_poison_becomes_an_error_result(host: Host) -> None:
    server = plain_server()
    host.change("added", server)
    subject = tool_request_subject(server.uid, "default", "call-1")
    await host.bus.connection.js.publish(subject, b'{"v": 99, "call": {"name": "the-call"}}')
    result = await host.result()
    assert (result.reason, result.call.name, result.call.uid) == ("BadRequest", "", "call-1")


async def test_a_deleted_server_takes_its_consumer_with_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_worker, "FAREWELL_SECONDS", 0.2)
    server = plain_server()
    host.change("added", server)
    await host.request(server, "echo", '{"text": "hi"}')
    await host.result()
    host.change("deleted", server)
    await until_not(lambda: has_consumer(host, server))


async def test_concurrency_is_the_servers_and_can_change(host: Host) -> None:
    server = plain_server(maxConcurrency=1)
    host.change("added", server)
    await host.request(server, "echo", '{"text": "hi"}', uid="call-0")
    await host.result("call-0")
    info = await host.bus.connection.js.consumer_info("KUBECHAIN_TOOL_REQUESTS", f"mcp-{server.uid}")
    assert info.config.max_ack_pending == 1
    host.change("modified", plain_server(maxConcurrency=5), server)
    await until(lambda: pending_is(host, server, 5))
    await host.request(server, "echo", '{"text": "hi"}')
    assert (await host.result()).content == "hi"


def is_running(host: Host, server: MCPServer) -> bool:
    connection = host.pool.get(server.uid)
    return connection is not None and connection._session is not None and connection._session._running > 0


def error_of(host: Host, server: MCPServer) -> str:
    connection = host.pool.get(server.uid)
    assert connection is not None
    return connection.state.error


async def is_requested(host: Host, server: MCPServer) -> bool:
    return await host.bus.has_message("KUBECHAIN_TOOL_REQUESTS", tool_request_subject(server.uid, "default", "call-1"))


async def connected(host: Host) -> bool:
    return host.bus.connected


async def pending_is(host: Host, server: MCPServer, number: int) -> bool:
    info = await host.bus.connection.js.consumer_info("KUBECHAIN_TOOL_REQUESTS", f"mcp-{server.uid}")
    return bool(info.config.max_ack_pending == number)


async def pending_acks(host: Host, server: MCPServer) -> int:
    info = await host.bus.connection.js.consumer_info("KUBECHAIN_TOOL_REQUESTS", f"mcp-{server.uid}")
    return int(info.num_ack_pending or 0)


async def has_consumer(host: Host, server: MCPServer) -> bool:
    consumers = await host.bus.connection.js.consumers_info("KUBECHAIN_TOOL_REQUESTS")
    return any(consumer.name == f"mcp-{server.uid}" for consumer in consumers)


async def until(condition: Callable[[], Any], wanted: bool = True) -> None:
    async with asyncio.timeout(PATIENCE):
        while bool(await condition()) is not wanted:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.02)


async def until_not(condition: Callable[[], Any]) -> None:
    await until(condition, wanted=False)
