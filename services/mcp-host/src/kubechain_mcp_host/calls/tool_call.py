"""Runs one tool call, from its arguments to its result: at most once, and never without an answer.

The claim on the call is made as late as possible, when the tool is known and its server connected, or when it is clear
that the call can not run: from then on a death of this process makes the outcome unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from mcp import MCPError

from kubechain_common.api.tool_arguments import InvalidArgumentsError
from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.api.v1alpha1.mcpserver import DEFAULT_REQUEST_TIMEOUT_SECONDS, MCPTool
from kubechain_common.messages import ToolRequest, ToolResult
from kubechain_common.messages.tool import (
    REASON_CANCELLED,
    REASON_INVALID_ARGUMENTS,
    REASON_OUTCOME_UNKNOWN,
    REASON_SERVER_UNAVAILABLE,
    REASON_TIMEOUT,
    REASON_TOOL_ERROR,
    REASON_TOOL_NOT_FOUND,
)
from kubechain_common.messaging import BusUnavailableError, Claim
from kubechain_common.runtime.clock import now
from kubechain_mcp_host.calls.execution_decision import (
    UNKNOWN_AFTER_HOST_DEATH,
    Execution,
    asks_age,
    decide_execution,
    may_run_again,
    parse_arguments,
    unknown_after_lost_connection,
)
from kubechain_mcp_host.calls.tool_result import MAX_ERROR_CHARACTERS, cap, find_images, render_result
from kubechain_mcp_host.connections.tool_session import ToolSession
from kubechain_mcp_host.errors import ConnectionLostError, ServerUnavailableError

IDEMPOTENCY_KEY = "kubechain.humanlayer.dev/idempotency-key"
"""Where a server finds the execution's key in ``_meta``: the same one when the call is made again."""

_CANCELLED = "The call was cancelled before this host could start it."
_MAX_LISTED_TOOLS = 50
_RECORD_RETRY_SECONDS = 0.5


class StartedRecord(Protocol):
    """Who started what (messaging.StartedCalls)."""

    async def claim(self, execution_key: str) -> Claim: ...
    async def created_at(self) -> datetime: ...


WaitSession = Callable[[float], Awaitable[ToolSession]]


class _Refused(Exception):
    """The call can not run, for ``reason``; the message is the sentence for the model."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass
class ToolCall:
    """One call to one server, as this delivery of its request asks for it.

    ``find_session`` gives the session for a call that has not begun, and may raise what leaves it to another replica;
    ``wait_session`` gives the next one to a call that has.
    """

    request: ToolRequest
    server: MCPServer
    find_session: WaitSession
    wait_session: WaitSession
    record: StartedRecord
    meta: Mapping[str, str]
    started_at: datetime | None = None

    @property
    def timeout(self) -> float:
        """Seconds that the call may take."""
        return float(self.server.spec.request_timeout_seconds or DEFAULT_REQUEST_TIMEOUT_SECONDS)

    async def run(self) -> ToolResult:
        """The call's result, whatever happens. Raises when the record of started calls fails, and what ``find_session``
        raises: nothing ran then.
        """
        try:
            arguments = self._parse_arguments()
            session, tool = await self._find_tool()
            problems = session.find_problems(tool, arguments)
            if problems:
                raise _Refused(
                    REASON_INVALID_ARGUMENTS, f'The arguments do not fit the tool "{tool.name}": {problems}.'
                )
        except _Refused as refusal:
            return await refuse(self.request, self.record, refusal.reason, str(refusal))
        execution = await self._decide(tool)
        if execution is Execution.CANCELLED:
            return self._failed(REASON_CANCELLED, _CANCELLED)
        if execution is Execution.OUTCOME_UNKNOWN:
            return self._failed(REASON_OUTCOME_UNKNOWN, UNKNOWN_AFTER_HOST_DEATH)
        self.started_at = now()
        return await self._execute(session, tool, arguments, ran_before=execution is Execution.RUN_AGAIN)

    def _parse_arguments(self) -> dict[str, Any]:
        try:
            return parse_arguments(self.request.arguments)
        except InvalidArgumentsError as error:
            raise _Refused(REASON_INVALID_ARGUMENTS, str(error)) from error

    async def _find_tool(self) -> tuple[ToolSession, MCPTool]:
        try:
            session = await self.find_session(self.timeout)
        except ServerUnavailableError as error:
            raise _Refused(REASON_SERVER_UNAVAILABLE, str(error)) from error
        tool = session.find(self.request.tool)
        if tool is None:
            raise _Refused(REASON_TOOL_NOT_FOUND, self._not_found(session))
        return session, tool

    async def _decide(self, tool: MCPTool) -> Execution:
        repeatable = may_run_again(tool, self.server.spec.on_lost_execution)
        claim = await self.record.claim(self.request.execution_key)
        # Asked after the claim: a bucket that was made anew in between then errs on the safe side.
        created_at = await _find_age(self.record) if asks_age(claim, repeatable=repeatable) else None
        return decide_execution(
            claim, repeatable=repeatable, requested_at=self.request.requested_at, record_created_at=created_at
        )

    async def _execute(
        self, session: ToolSession, tool: MCPTool, arguments: dict[str, Any], *, ran_before: bool
    ) -> ToolResult:
        """Runs the tool, once more when the connection breaks and that can do no harm."""
        repeatable = may_run_again(tool, self.server.spec.on_lost_execution)
        may_have_run = ran_before
        why = f'The connection to MCPServer "{self.server.name}" was lost before the tool could be started.'
        lost = ""
        for last in (False, True):
            try:
                return await self._attempt(session, arguments)
            except ConnectionLostError as error:
                may_have_run, lost = may_have_run or error.may_have_run, str(error)
            if last or (may_have_run and not repeatable):
                break
            try:
                session = await self.wait_session(self.timeout)
            except ServerUnavailableError as error:
                why = str(error)
                break
        if may_have_run:
            return self._failed(REASON_OUTCOME_UNKNOWN, unknown_after_lost_connection(lost))
        return self._failed(REASON_SERVER_UNAVAILABLE, why)

    async def _attempt(self, session: ToolSession, arguments: dict[str, Any]) -> ToolResult:
        """Raises ConnectionLostError only."""
        scrub = session.scrubber.scrub_result
        try:
            async with asyncio.timeout(self.timeout):
                result = await session.call(
                    self.request.tool, arguments, {**self.meta, IDEMPOTENCY_KEY: self.request.execution_key}
                )
        except TimeoutError:
            session.mark_unanswered()
            return self._failed(REASON_TIMEOUT, self._too_slow())
        except MCPError as error:
            sentence = f'MCPServer "{self.server.name}" refused the call: {error.message}'
            return self._failed(REASON_TOOL_ERROR, scrub(sentence))
        except ConnectionLostError:
            raise
        except Exception as error:
            # The SDK checks results against the protocol.
            sentence = f'The answer of MCPServer "{self.server.name}" can not be used: {error}'
            return self._failed(REASON_TOOL_ERROR, scrub(sentence))
        text = scrub(render_result(result))
        if result.is_error:
            return self._failed(REASON_TOOL_ERROR, text)
        return self._result("Succeeded", content=cap(text), images=find_images(result))

    def _failed(self, reason: str, sentence: str) -> ToolResult:
        return _build_failure(self.request, reason, sentence, self.started_at)

    def _result(self, outcome: Any, **fields: Any) -> ToolResult:
        return ToolResult(
            call=self.request.call, outcome=outcome, started_at=self.started_at, completed_at=now(), **fields
        )

    def _too_slow(self) -> str:
        return (
            f'The tool "{self.request.tool}" of MCPServer "{self.server.name}" did not answer within '
            f"{self.timeout:g} seconds (spec.requestTimeoutSeconds). It may or may not have taken effect."
        )

    def _not_found(self, session: ToolSession) -> str:
        names = [tool.name for tool in session.tools]
        listed = ", ".join(names[:_MAX_LISTED_TOOLS]) or "none"
        more = f" and {len(names) - _MAX_LISTED_TOOLS} more" if len(names) > _MAX_LISTED_TOOLS else ""
        return f'MCPServer "{self.server.name}" has no tool "{self.request.tool}". Available tools: {listed}{more}.'


async def refuse(request: ToolRequest, record: StartedRecord, reason: str, sentence: str) -> ToolResult:
    """The result of a call that can not run here, with the sentence for the model.

    It may have begun before: an earlier delivery got further, or the call was deleted and made again under its name.
    Then "it did not run" would be a lie, so its key is claimed as if it were to run.
    """
    claim = await record.claim(request.execution_key)
    created_at = await _find_age(record)
    match decide_execution(
        claim=claim, requested_at=request.requested_at, record_created_at=created_at, repeatable=False
    ):
        case Execution.CANCELLED:
            return _build_failure(request, REASON_CANCELLED, _CANCELLED)
        case Execution.RUN:
            return _build_failure(request, reason, sentence)
        case _:
            return _build_failure(request, REASON_OUTCOME_UNKNOWN, UNKNOWN_AFTER_HOST_DEATH)


async def _find_age(record: StartedRecord) -> datetime:
    """When the record of started calls began. It is waited for: to give up now would leave a claim behind for a call
    that never ran.
    """
    while True:
        try:
            return await record.created_at()
        except BusUnavailableError:
            await asyncio.sleep(_RECORD_RETRY_SECONDS)


def _build_failure(request: ToolRequest, reason: str, sentence: str, started_at: datetime | None = None) -> ToolResult:
    return ToolResult(
        call=request.call,
        outcome="Failed",
        reason=reason,
        error=cap(sentence, MAX_ERROR_CHARACTERS),
        started_at=started_at,
        completed_at=now(),
    )
