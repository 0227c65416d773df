"""Requests in, results out, over a real NATS: the pool, the workers and the handler together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from mcp_testbed import FAST, eventually, plain_server

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.kube.informer import Change
from kubechain_common.kube.secrets import SecretWatcher
from kubechain_common.messages import ObjectRef, ToolRequest, ToolResult
from kubechain_common.messages.topology import (
    TOOL_RESULTS_CONSUMER,
    mcp_consumer,
    tool_request_subject,
    tool_result_subject,
)
from kubechain_common.messaging import Bus, Claim, Consumer, Delivery, Room
from kubechain_common.runtime.clock import now
from kubechain_common.testing.nats_server import NatsServer, run_nats_server
from kubechain_mcp_host import call_worker
from kubechain_mcp_host.call_handler import CallHandler
from kubechain_mcp_host.call_worker import CallWorkers
from kubechain_mcp_host.connection_pool import ConnectionPool
from kubechain_mcp_host.connection_state import Phase, Timing
from kubechain_mcp_host.stdio_launch import StdioLauncher


class NoSecrets:
    def add_handler(self, handler: Callable[[str, str], None]) -> None: ...
    def set_references(self, owner: str, refs: set[tuple[str, str]]) -> None: ...


@dataclass
class Host:
    bus: Bus
    pool: ConnectionPool
    workers: CallWorkers
    nats: NatsServer
    results: dict[str, list[ToolResult]] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[ToolRequest] = field(default_factory=list)

    def change(self, kind: str, server: MCPServer, old: MCPServer | None = None) -> None:
        new = None if kind == "deleted" else server
        change = Change(cast("Any", kind), old or (server if kind == "deleted" else None), new)
        self.pool.handle_change(change)
        self.workers.handle_change(change)

    async def request(self, server: MCPServer, tool: str, arguments: str = "{}", uid: str = "call-1") -> None:
        request = ToolRequest(
            call=ObjectRef(namespace="default", name="the-call", uid=uid),
            execution_key=f"default/{uid}",
            server=ObjectRef.of(server),
            tool=tool,
            arguments=arguments,
            requested_at=now(),
        )
        await self.bus.publish(tool_request_subject(server.uid, "default", uid), request, msg_id=None)

    async def result(self, uid: str = "call-1", seconds: float = 8.0) -> ToolResult:
        await eventually(lambda: self.results.get(uid), seconds)
        return self.results[uid][0]

    async def take_result(self, delivery: Delivery[ToolResult]) -> None:
        self.results.setdefault(delivery.subject.rpartition(".")[2], []).append(delivery.message)

    async def take_request(self, delivery: Delivery[ToolRequest]) -> None:
        self.requests.append(delivery.message)


@asynccontextmanager
async def run_host(directory: Path, *, collect: bool = True, timing: Timing = FAST) -> AsyncIterator[Host]:
    async with run_nats_server(directory) as nats, Bus.connect(nats.url, "test") as bus:
        pool = ConnectionPool(cast("SecretWatcher", NoSecrets()), StdioLauncher(os.environ), timing)
        stopping, closing, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
        handler = CallHandler(bus, pool, stopping)
        host = Host(
            bus, pool, CallWorkers(bus, handler, pool.wait_known, grace=2.0, room=Room(100)), nats, stopping=stopping
        )
        collector = Consumer(bus, TOOL_RESULTS_CONSUMER, ToolResult, host.take_result, concurrency=8)
        async with asyncio.TaskGroup() as group:
            group.create_task(pool.run(closing))
            working = group.create_task(host.workers.run(stopping))
            if collect:
                group.create_task(collector.run(done))
            try:
                yield host
            finally:
                stopping.set()
                await asyncio.wait({working})
                closing.set()
                done.set()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with run_host(tmp_path) as it:
        yield it


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
    async with run_host(tmp_path, timing=replace(FAST, stdio_connect=1.0, first_retry=60.0)) as host:
        server = plain_server("--mute")
        host.change("added", server)
        await host.request(server, "echo")
        assert not await has_consumer(host, server)
        assert phase_of(host, server) is Phase.CONNECTING
        await until(lambda: has_consumer(host, server))
        assert phase_of(host, server) is Phase.FAILED


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
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
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
    async with run_host(tmp_path, collect=False) as host:
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


async def test_a_result_lost_with_the_storage_is_remembered(host: Host) -> None:
    server = plain_server()
    host.change("added", server)
    await host.request(server, "pid")
    first = await host.result()
    host.results.clear()
    await host.nats.lose_storage()
    await until(lambda: connected(host))
    await host.request(server, "pid")
    assert await host.result(seconds=20.0) == first


async def test_a_call_that_runs_through_a_loss_of_storage_is_answered_once(host: Host) -> None:
    server = plain_server()
    host.change("added", server)
    await host.request(server, "slow", '{"seconds": 1}')
    await eventually(lambda: is_running(host, server))
    await host.nats.lose_storage()
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


def phase_of(host: Host, server: MCPServer) -> Phase:
    connection = host.pool.get(server.uid)
    assert connection is not None
    return connection.state.phase


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
    async with asyncio.timeout(10):
        while bool(await condition()) is not wanted:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.02)


async def until_not(condition: Callable[[], Any]) -> None:
    await until(condition, wanted=False)
