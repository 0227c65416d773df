"""The outside world: a model that answers, tools that run and people who decide, by script, and a book of what really
happened.

A Task's user message names its script, so an answer is known by the Task and the turn that it was asked for, whatever
the system under test believes.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcp_types import CallToolResult, TextContent
from tests.model.effects import Effects

from kubechain_common.api.content import SUMMARY_INTRODUCTION
from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, TokenUsage, ToolCallFunction
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.api.v1alpha1.mcpserver import MCPTool, ToolAnnotations
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_llm_gateway.providers.base import Completion, OnDelta, Validation
from kubechain_llm_gateway.providers.errors import RejectedRequestError, TransientProviderError
from kubechain_mcp_host.calls.tool_call import IDEMPOTENCY_KEY
from kubechain_mcp_host.errors import ConnectionLostError
from kubechain_mcp_host.scrubber import Scrubber
from kubechain_task_controller.core.overflow import PROMPT

READ, ONCE, BROKEN, BREAKS_OFF, UNKNOWN = "read", "once", "broken", "breaks_off", "unknown"
GUARDED, REFUSED = "guarded", "refused"
"""Tools that need approval; whoever is asked approves the one and rejects the other (see ``Outside.refused``)."""
REFUSAL = "not on a Friday"
CHANNEL = "people"
TOOLS = (
    MCPTool(name=READ, annotations=ToolAnnotations(read_only_hint=True)),
    MCPTool(name=ONCE),
    MCPTool(name=BROKEN),
    MCPTool(name=BREAKS_OFF),
    MCPTool(name=GUARDED),
    MCPTool(name=REFUSED),
)
TOOL_KINDS = (READ, ONCE, BROKEN, BREAKS_OFF, UNKNOWN, GUARDED, REFUSED)
SERVER = "tools"
_SAID = re.compile(r"turn (\d+) answer")
HELPER = "helper"
"""The sub-agent of agent ``boss``."""


@dataclass(frozen=True)
class Turn:
    """What the model does when it is asked for this turn: fail so often, then refuse, or answer with tool calls.

    ``delegates`` are the scripts that the helper is given, in calls after those of the tools. ``reads`` is how many
    tokens it counts in the request; what it says is JSON if ``json`` is set, and a summary of what was said before if
    ``summary`` is, in one turn of a script at the most.
    """

    tools: tuple[str, ...] = ()
    delegates: tuple[str, ...] = ()
    failures: int = 0
    rejects: bool = False
    reads: int = 1
    json: bool = False
    summary: bool = False


@dataclass(frozen=True)
class Answer:
    """Something that the model said; each time it is asked it says something else."""

    script: str
    turn: int
    message: Message
    usage: TokenUsage
    read: tuple[str, ...]


@dataclass
class Outside:
    """``scripts``: by the name in the user message. Everything else is the book."""

    effects: Effects
    scripts: dict[str, tuple[Turn, ...]] = field(default_factory=dict)
    asked: dict[tuple[str, int], int] = field(default_factory=dict)
    windows: list[tuple[str, int, tuple[str, ...]]] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    runs: dict[str, list[str]] = field(default_factory=dict)
    tool_of: dict[str, str] = field(default_factory=dict)
    people_asked: set[str] = field(default_factory=set)
    people_answer: bool = True
    thinks_for: float = 0.0
    refused: set[str] = field(default_factory=lambda: {REFUSED})
    observe_run: Callable[[str, str], None] = lambda tool, key: None

    def answer(self, messages: Sequence[Message]) -> Completion:
        script = next(m.content for m in messages if m.role == "user")
        turn = 1 + max((_turn_of(m) for m in messages), default=0)
        if messages[-1].content == PROMPT:  # what it does not tell of was said before all the same
            turn = 1 + next(i for i, planned in enumerate(self.scripts[script]) if planned.summary)
        number = self.asked[script, turn] = self.asked.get((script, turn), 0) + 1
        self.windows.append((script, turn, tuple(m.content for m in messages)))
        turns = self.scripts[script]
        planned = turns[turn - 1] if turn <= len(turns) else Turn()
        if number <= planned.failures:
            raise TransientProviderError("overloaded", status_code=503)
        if planned.rejects:
            raise RejectedRequestError("no", status_code=400)
        content = f"{script} turn {turn} answer {number}"
        if planned.json:
            content = json.dumps(content)
        calls = [
            MessageToolCall(
                id=f"call_{turn}_{number}_{i}",
                function=ToolCallFunction(
                    name=f"{SERVER}__{tool}", arguments=json.dumps({"of": f"{script}.{turn}.{i}"})
                ),
            )
            for i, tool in enumerate(planned.tools, start=1)
        ]
        calls += [
            MessageToolCall(
                id=f"call_{turn}_{number}_{name}",
                function=ToolCallFunction(name=f"delegate_to_agent__{HELPER}", arguments=json.dumps({"message": name})),
            )
            for name in planned.delegates
        ]
        message = Message(role="assistant", content=content, tool_calls=calls or None)
        usage = TokenUsage(input_tokens=planned.reads, output_tokens=number, total_tokens=planned.reads + number)
        self.answers[content] = Answer(script, turn, message, usage, tuple(m.content for m in messages))
        return Completion(message, usage, "stop")

    def run_tool(self, tool: str, key: str) -> CallToolResult:
        self.observe_run(tool, key)
        runs = self.runs.setdefault(key, [])
        self.tool_of[key] = tool
        text = f"{tool} of {key}, run {len(runs) + 1}"
        runs.append(text)
        if tool == BREAKS_OFF:
            raise ConnectionLostError("the connection was lost.", may_have_run=True)
        return CallToolResult(content=[TextContent(type="text", text=text)], is_error=tool == BROKEN)


def _turn_of(message: Message) -> int:
    """Of something that this model said, be it in a summary."""
    ours = message.role == "assistant" or message.content.startswith(SUMMARY_INTRODUCTION)
    said = _SAID.search(message.content) if ours else None
    return int(said[1]) if said else 0


class ModelProvider:
    """A provider's client in llm-gateway."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def validate(self) -> Validation:
        """A probe: somebody is there."""
        return Validation("fine")

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        on_delta: OnDelta | None = None,
        response_format: ResponseFormat | None = None,
    ) -> Completion:
        completion: Completion = await self._outside.effects.perform(
            "ask the model",
            lambda: self._outside.answer(messages),
            failure=lambda: TransientProviderError("the connection broke"),
        )
        if self._outside.thinks_for:
            await asyncio.sleep(self._outside.thinks_for)
        return completion


class ModelSession:
    """An open connection to the one MCP server, in mcp-host."""

    tools = TOOLS
    scrubber = Scrubber(())

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def find(self, name: str) -> MCPTool | None:
        return next((tool for tool in self.tools if tool.name == name), None)

    def find_problems(self, tool: MCPTool, arguments: Mapping[str, Any]) -> str:
        return ""

    def mark_unanswered(self) -> None:
        pass

    async def call(self, tool: str, arguments: dict[str, Any], meta: Mapping[str, str]) -> CallToolResult:
        key = meta[IDEMPOTENCY_KEY]
        result: CallToolResult = await self._outside.effects.perform(
            f"run {tool} for {key}",
            lambda: self._outside.run_tool(tool, key),
            failure=lambda: ConnectionLostError("the connection was lost.", may_have_run=True),
        )
        return result
