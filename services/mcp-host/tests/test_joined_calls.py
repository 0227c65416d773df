"""A call that is asked for again while it runs."""

from __future__ import annotations

import asyncio

import pytest

from kubechain_common.messages import ObjectRef, ToolResult
from kubechain_common.testing.builders import NOW
from kubechain_mcp_host.calls.ledger import CallLedger

RESULT = ToolResult(
    call=ObjectRef(namespace="default", name="call", uid="u"), outcome="Succeeded", content="once", completed_at=NOW
)


class Tool:
    """Answers, or fails, when it is let; ``runs`` counts."""

    def __init__(self) -> None:
        self.runs = 0
        self.let = asyncio.Event()
        self.error: Exception | None = None

    async def run(self) -> ToolResult:
        self.runs += 1
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return RESULT


async def begin(ledger: CallLedger, tool: Tool, group: asyncio.TaskGroup) -> asyncio.Task[object]:
    async def outcome() -> object:
        try:
            return await ledger.run_once("u", tool.run)
        except Exception as error:
            return error

    task = group.create_task(outcome())
    await asyncio.sleep(0)
    return task


async def test_a_call_that_comes_again_while_it_runs_does_not_run_twice() -> None:
    ledger, tool = CallLedger(), Tool()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        tasks = [await begin(ledger, tool, group) for _ in range(3)]
        tasks[1].cancel()  # whoever asked again gives up: the call goes on
        await asyncio.sleep(0)
        tool.let.set()
    assert (tasks[0].result(), tasks[2].result(), tool.runs) == (RESULT, RESULT, 1)


@pytest.mark.parametrize("end", ["error", "cancelled"])
async def test_whoever_waits_for_a_call_that_ends_without_a_result_does_not_wait_for_ever(end: str) -> None:
    ledger, tool = CallLedger(), Tool()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running, waiting = [await begin(ledger, tool, group) for _ in range(2)]
        if end == "error":
            tool.error = RuntimeError("the record is away")
            tool.let.set()
        else:
            running.cancel()
        await asyncio.wait([waiting])
    assert waiting.cancelled() if end == "cancelled" else waiting.result() is tool.error
    tool.error = None
    tool.let.set()
    assert await ledger.run_once("u", tool.run) == RESULT
