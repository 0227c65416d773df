"""One tool call against a real server: every way in which it can end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from mcp_testbed import Harness, connect, eventually, plain_server, sdk_server

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.messages import ObjectRef, ToolRequest, ToolResult
from kubechain_common.messaging import BusUnavailableError, Claim
from kubechain_common.testing.builders import NOW
from kubechain_mcp_host.calls.tool_call import ToolCall

pytestmark = pytest.mark.integration


@dataclass
class Record:
    """The record of started calls, in memory."""

    claimed: set[str] = field(default_factory=set)
    created: datetime = NOW - timedelta(days=1)
    outages: int = 0
    cancelled: set[str] = field(default_factory=set)

    async def claim(self, execution_key: str) -> Claim:
        if execution_key in self.cancelled:
            return Claim.CANCELLED
        first = execution_key not in self.claimed
        self.claimed.add(execution_key)
        return Claim.GRANTED if first else Claim.TAKEN

    async def created_at(self) -> datetime:
        if self.outages:
            self.outages -= 1
            raise BusUnavailableError("away")
        return self.created


@dataclass
class Bench:
    harness: Harness
    server: MCPServer
    record: Record = field(default_factory=Record)

    async def run(self, tool: str, arguments: str = "", *, key: str = "call-1") -> ToolResult:
        request = ToolRequest(
            call=ObjectRef(namespace="default", name="call", uid="call-1"),
            execution_key=key,
            server=ObjectRef.of(self.server),
            tool=tool,
            arguments=arguments,
            requested_at=NOW,
        )
        wait = self.harness.connection.wait_session
        meta = {"traceparent": "00-1-2-01"}
        return await ToolCall(request, self.server, wait, wait, self.record, meta).run()


@asynccontextmanager
async def bench(server: MCPServer) -> AsyncIterator[Bench]:
    async with connect(server) as harness:
        await harness.connected()
        yield Bench(harness, server)


async def test_success() -> None:
    async with bench(plain_server()) as it:
        result = await it.run("echo", '{"text": "hi"}')
        assert (result.outcome, result.content, result.error) == ("Succeeded", "hi", "")
        assert result.started_at is not None
        assert result.completed_at is not None
        assert result.started_at <= result.completed_at
        assert it.record.claimed == {"call-1"}


async def test_structured_content_and_the_servers_own_schema() -> None:
    async with bench(sdk_server()) as it:
        result = await it.run("add", '{"a": 1, "b": 2}')
        assert '"total": 3' in result.content


async def test_the_tools_own_error() -> None:
    async with bench(plain_server()) as it:
        result = await it.run("fail")
        assert (result.outcome, result.reason) == ("Failed", "ToolError")
        assert '"kubechain.humanlayer.dev/idempotency-key": "call-1"' in result.error
        assert '"traceparent": "00-1-2-01"' in result.error


async def test_bad_arguments_never_start_the_tool() -> None:
    async with bench(plain_server()) as it:
        result = await it.run("echo", "{")
        assert result.reason == "InvalidArguments"
        assert (result.started_at, it.record.claimed) == (None, {"call-1"})


async def test_an_unknown_tool() -> None:
    async with bench(plain_server()) as it:
        result = await it.run("sing")
        assert result.reason == "ToolNotFound"
        assert result.error == (
            'MCPServer "plain" has no tool "sing". Available tools: echo, env, pid, die, slow, grow, fail, flood, odd.'
        )
        assert (result.started_at, it.record.claimed) == (None, {"call-1"})


async def test_timeout() -> None:
    async with bench(plain_server(requestTimeoutSeconds=1)) as it:
        result = await it.run("slow")
        assert result.reason == "Timeout"
        assert result.error == (
            'The tool "slow" of MCPServer "plain" did not answer within 1 seconds (spec.requestTimeoutSeconds). '
            "It may or may not have taken effect."
        )
        patient = Bench(it.harness, plain_server())
        assert (await patient.run("echo", '{"text": "still fine"}')).content == "still fine"
        assert it.harness.connection.lives == 1


async def test_a_server_that_answers_nothing_in_time_is_restarted() -> None:
    async with bench(plain_server(requestTimeoutSeconds=1, onLostExecution="Retry")) as it:
        first = await it.harness.call("pid")
        async with asyncio.TaskGroup() as group:
            slow = [group.create_task(it.run("slow")) for _ in range(3)]
        assert [task.result().reason for task in slow] == ["Timeout"] * 3
        assert await it.harness.call("pid") != first
        assert (await it.harness.failed()).error == "the server did not answer 3 calls in a row in time."


async def test_arguments_that_do_not_fit_never_start_the_tool() -> None:
    async with bench(plain_server()) as it:
        result = await it.run("echo", '{"text": 3}')
        assert result.reason == "InvalidArguments"
        assert result.error == 'The arguments do not fit the tool "echo": "text" must be of type string, not 3.'
        assert (result.started_at, it.record.claimed) == (None, {"call-1"})


async def test_a_claimed_call_is_not_run_again() -> None:
    async with bench(plain_server()) as it:
        it.record.claimed.add("call-1")
        result = await it.run("pid")
        assert result.reason == "OutcomeUnknown"
        assert result.error == (
            "The outcome of the call is unknown: the tool was started, but its host died before the result was "
            "recorded. It may or may not have taken effect."
        )


async def test_a_claimed_call_of_a_read_only_tool_is_run_again() -> None:
    async with bench(plain_server()) as it:
        it.record.claimed.add("call-1")
        assert (await it.run("echo", '{"text": "twice"}')).content == "twice"


async def test_the_owner_may_ask_for_a_retry() -> None:
    async with bench(plain_server(onLostExecution="Retry")) as it:
        it.record.claimed.add("call-1")
        assert (await it.run("pid")).outcome == "Succeeded"


@pytest.mark.parametrize("tool", ["pid", "echo"])
async def test_a_cancelled_call_does_not_begin_even_if_it_might_run_twice(tool: str) -> None:
    async with bench(plain_server(onLostExecution="Retry")) as it:
        it.record.cancelled.add("call-1")
        result = await it.run(tool, '{"text": "hi"}')
        assert (result.outcome, result.reason) == ("Failed", "Cancelled")
        assert result.started_at is None
        assert not it.record.claimed


@pytest.mark.parametrize(
    ("tool", "arguments"), [("echo", "{"), ("sing", ""), ("echo", '{"text": 3}')], ids=["no JSON", "no tool", "unfit"]
)
@pytest.mark.parametrize("lost", [False, True], ids=["claimed before", "record lost"])
async def test_a_call_that_had_begun_before_is_never_said_not_to_have_run(
    tool: str, arguments: str, lost: bool
) -> None:
    """Also by the first delivery of its request: it was deleted and made again, or etcd was restored."""
    async with bench(plain_server()) as it:
        if lost:
            it.record.created = NOW + timedelta(microseconds=1)
        else:
            it.record.claimed.add("call-1")
        result = await it.run(tool, arguments)
        assert (result.reason, result.started_at) == ("OutcomeUnknown", None)
        assert "It may or may not have taken effect." in result.error


async def test_a_cancelled_call_that_can_not_run_anyway_was_cancelled() -> None:
    async with bench(plain_server()) as it:
        it.record.cancelled.add("call-1")
        assert (await it.run("sing")).reason == "Cancelled"


async def test_a_call_older_than_the_record_counts_as_started() -> None:
    async with bench(plain_server()) as it:
        it.record.created = NOW + timedelta(microseconds=1)
        assert (await it.run("pid")).reason == "OutcomeUnknown"
        assert (await it.run("echo", '{"text": "safe"}')).content == "safe"


async def test_an_outage_after_the_claim_is_waited_out() -> None:
    async with bench(plain_server()) as it:
        it.record.outages = 1
        assert (await it.run("pid")).outcome == "Succeeded"


async def test_a_tool_that_may_run_twice_does_not_wait_for_the_record() -> None:
    async with bench(plain_server()) as it:
        it.record.outages = 1
        assert (await it.run("echo", '{"text": "safe"}')).content == "safe"
        assert it.record.outages == 1


async def test_a_connection_that_dies_in_mid_call() -> None:
    async with bench(plain_server()) as it:
        result = await it.run("die")
        assert result.reason == "OutcomeUnknown"
        assert (
            "the connection to the MCP server was lost while the tool was running (the server ended, or closed"
            in result.error
        )


async def test_a_repeatable_call_is_tried_once_more_when_its_connection_dies() -> None:
    async with bench(plain_server(onLostExecution="Retry")) as it:
        first = it.harness.state
        result = await it.run("die")
        assert result.reason == "OutcomeUnknown"
        lives = [state for state in it.harness.states if state.phase == first.phase]
        assert len(lives) == 2


async def test_a_server_that_is_not_there() -> None:
    server = plain_server("--exit", "1", requestTimeoutSeconds=1)
    async with connect(server) as harness:
        it = Bench(harness, server)
        await harness.failed()
        result = await it.run("echo")
        assert result.reason == "ServerUnavailable"
        assert result.error.startswith('MCPServer "plain" was not connected within 1 seconds: the server process ended')
        assert it.record.claimed == {"call-1"}
        assert (await it.run("echo")).reason == "OutcomeUnknown"


async def test_a_deleted_server_ends_its_calls() -> None:
    async with bench(plain_server()) as it, asyncio.TaskGroup() as group:
        running = group.create_task(it.run("slow"))
        await eventually(lambda: it.record.claimed)
        it.harness.connection.stop()
        result = await running
        assert result.reason == "OutcomeUnknown"
        late = await it.run("pid", key="call-2")
        assert late.error == 'MCPServer "plain" was deleted.'


async def test_secret_values_do_not_come_back() -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "token"}}}]
    server = plain_server(env=env)
    async with connect(server, {"creds": {"token": "s3cr3t-value"}}) as harness:
        await harness.connected()
        result = await Bench(harness, server).run("env")
        assert '"TOKEN": "***"' in result.content


@pytest.mark.parametrize("size", [300_000])
async def test_a_huge_result_is_capped(size: int) -> None:
    async with bench(plain_server()) as it:
        result = await it.run("echo", '{"text": "' + "x" * size + '"}')
        assert len(result.content) <= 256 * 1024
        assert "of 300,000 bytes]" in result.content
