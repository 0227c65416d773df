"""Task: a message to an Agent, and the conversation that answers it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from kubechain_common.api.v1alpha1.conversation import MAX_CONTENT, GivenMessage, Message, TokenUsage
from kubechain_common.api.v1alpha1.meta import (
    CRDInfo,
    KubeModel,
    PrinterColumn,
    Ref,
    Resource,
    Timestamp,
    refers_to,
)
from kubechain_common.api.v1alpha1.money import Currency, CurrencyCode, Sum, amount
from kubechain_common.api.v1alpha1.rules import (
    Rule,
    at_creation,
    cel,
    cel_all,
    immutable,
    stays_true,
    unless,
    validations,
)
from kubechain_common.api.v1alpha1.status import Conditions, SpanContext, Status

DEFAULT_MAX_TURNS = 50


class TaskPhase(StrEnum):
    """Where a Task stands. It starts without a phase; FinalAnswer and Failed are final."""

    PENDING = "Pending"
    SEND_CONTEXT_WINDOW_TO_LLM = "SendContextWindowToLLM"
    TOOL_CALLS_PENDING = "ToolCallsPending"
    FINAL_ANSWER = "FinalAnswer"
    FAILED = "Failed"


ANSWER_INCOMPLETE = "FinalAnswerIncomplete"
"""Reason of the Complete condition when the output is not the model's whole answer."""

TERMINAL_PHASES = frozenset({TaskPhase.FINAL_ANSWER, TaskPhase.FAILED})


class ContextWindowSource(KubeModel):
    """An earlier Task whose conversation goes on here: whole, or only up to a turn (a fork)."""

    task_ref: Annotated[Ref, refers_to("a Task")]
    turn: Annotated[int, Field(ge=1)] | None = None


class DelegatedFrom(KubeModel):
    """The call of another agent's Task that this Task answers.

    ``depth`` is how many delegations lead here; ``spanContext`` is the span of that call, in whose trace this Task is.
    """

    tool_call_ref: Annotated[Ref, refers_to("a TaskRunToolCall")]
    depth: Annotated[int, Field(ge=1)]
    span_context: SpanContext | None = None


def _every_message(holds: str, message: str) -> Rule:
    """A rule for each message ``m`` of a window."""
    first = f"self.map(m, {holds}).indexOf(false)"
    return {
        **cel(f"self.all(m, {holds})", message),
        "messageExpression": f"'contextWindow[%d]: {message}'.format([{first}])",
    }


# On the list, not on its messages, which every write would go through one by one.
_GIVEN_WINDOW = tuple(
    at_creation(rule)
    for rule in (
        cel("self.exists(m, m.role == 'user')", "contextWindow needs at least one message with role user"),
        _every_message(
            "m.role != 'tool' || (has(m.toolCallId) && m.toolCallId != '')",
            "a message with role tool needs the toolCallId of the tool call that it answers",
        ),
        _every_message(
            "m.role == 'assistant' || !has(m.toolCalls)", "toolCalls belong to messages with role assistant only"
        ),
        _every_message(
            "!(m.role in ['earlier', 'summary'])",
            "roles earlier and summary are written by KubeChain only: give the messages themselves",
        ),
        _every_message(
            "!has(m.contentFrom)", "contentFrom is written by KubeChain only: give the whole text in content"
        ),
        _every_message("!has(m.images)", "images are written by KubeChain only: a tool returns them"),
        _every_message(
            "!has(m.toolCalls) || m.toolCalls.all(c, !has(c.function.argumentsFrom))",
            "argumentsFrom is written by KubeChain only: give the whole arguments",
        ),
    )
)

_SOMETHING_TO_DO = cel_all(
    cel("has(self.userMessage) != has(self.contextWindow)", "set exactly one of userMessage and contextWindow"),
    cel("!has(self.contextWindowFrom) || has(self.userMessage)", "contextWindowFrom needs a userMessage to go on with"),
    cel(
        "!has(self.userMessage) || self.userMessage.matches('[^ \\\\t\\\\r\\\\n]')",
        "userMessage is blank: say what the agent is to do",
    ),
    message="a Task needs a userMessage or a contextWindow",
    field="userMessage",
)

_CHANGES = cel_all(
    *(
        immutable(field, ": create a new Task instead")
        for field in (
            "agentRef",
            "userMessage",
            "contextWindow",
            "contextWindowFrom",
            "maxTurns",
            "activeDeadlineSeconds",
            "delegatedFrom",
            "budget",
        )
    ),
    stays_true("cancel", "a cancelled Task stays cancelled"),
    message="only ttlSecondsAfterFinished may change, and cancel be set: create a new Task instead",
)


class TaskBudget(KubeModel):
    """What a Task may use, the Tasks of its sub-agents included, before it ends instead of asking its model again."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            at_creation(cel("has(self.tokens) || has(self.cost)", "a budget needs tokens, cost or both"))
        )
    )

    tokens: Annotated[int, Field(ge=1)] | None = None
    cost: Annotated[str, amount("cost")] | None = None
    currency: Annotated[CurrencyCode, Field(description="Of cost. Absent: USD.")] | None = None


class TaskSpec(KubeModel):
    model_config = ConfigDict(
        json_schema_extra=validations(at_creation(_SOMETHING_TO_DO), unless("self == oldSelf", _CHANGES))
    )

    agent_ref: Annotated[Ref, refers_to("an Agent")]
    user_message: Annotated[str, Field(min_length=1, max_length=MAX_CONTENT)] | None = None
    context_window: (
        Annotated[
            list[GivenMessage], Field(min_length=1, max_length=1000, json_schema_extra=validations(*_GIVEN_WINDOW))
        ]
        | None
    ) = None
    context_window_from: ContextWindowSource | None = None
    max_turns: Annotated[int, Field(ge=1, le=10000)] | None = None
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    delegated_from: DelegatedFrom | None = None
    budget: TaskBudget | None = None
    cancel: bool | None = None


class UsageBefore(KubeModel):
    """What had been used before a day (2026-11-28) or a month (2026-11) in UTC began."""

    period: Annotated[str, Field(max_length=10)]
    total_tokens: int = 0
    cost: Sum | None = None


class TaskStatus(Status):
    phase: TaskPhase | None = None
    ready: bool = False
    status: Literal["Ready", "Error", "Pending"] | None = None
    status_detail: Annotated[str, Field(max_length=32768)] = ""
    turn: int = 0
    start_time: Timestamp | None = None
    completion_time: Timestamp | None = None
    message_count: int = 0
    inherited_messages: (
        Annotated[
            int,
            Field(
                description="Of a Task that goes on with a conversation: how many messages were before its first turn."
            ),
        ]
        | None
    ) = None
    token_usage: TokenUsage | None = None
    cost: (
        Annotated[Sum, Field(description="What its turns cost so far, by spec.prices of the LLM. Absent: no prices.")]
        | None
    ) = None
    currency: Annotated[Currency, Field(description="Of cost.")] | None = None
    usage_before: (
        Annotated[
            list[UsageBefore],
            Field(
                max_length=2,
                description="Of a Task that goes on over midnight or the end of a month: what it had used before the"
                " day and the month of its last turn. Budgets of namespaces are by these.",
            ),
        ]
        | None
    ) = None
    user_msg_preview: Annotated[str, Field(max_length=256)] = ""
    output: Annotated[str, Field(max_length=MAX_CONTENT)] = ""
    error: Annotated[str, Field(max_length=32768)] = ""
    context_window: Annotated[list[Message], Field(max_length=20000)] = Field(default_factory=list)
    window_tokens: (
        Annotated[
            int,
            Field(description="About the tokens of what the model reads next; known while the Agent has spec.context."),
        ]
        | None
    ) = None
    summary_keeps: (
        Annotated[
            int,
            Field(description="While a turn asks for a summary: of all messages but so many at the end."),
        ]
        | None
    ) = None
    span_context: SpanContext | None = None
    observed_generation: int | None = None
    conditions: Conditions = Field(default_factory=list)


class Task(Resource):
    """One run of an Agent."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            at_creation(
                cel(
                    "!has(self.spec.contextWindowFrom) ||"
                    " self.spec.contextWindowFrom.taskRef.name != self.metadata.name",
                    "a Task can not go on from itself: name an earlier Task",
                    field="spec.contextWindowFrom.taskRef.name",
                )
            )
        )
    )

    crd: ClassVar[CRDInfo] = CRDInfo(
        kind="Task",
        plural="tasks",
        singular="task",
        short_names=(),
        columns=(
            PrinterColumn("Ready", ".status.ready", "boolean"),
            PrinterColumn("Status", ".status.status"),
            PrinterColumn("Detail", ".status.statusDetail", priority=1),
            PrinterColumn("Phase", ".status.phase"),
            PrinterColumn("Preview", ".status.userMsgPreview"),
            PrinterColumn("Output", ".status.output"),
            PrinterColumn("Error", ".status.error", priority=1),
            PrinterColumn("Started", ".status.startTime", "date", priority=1),
            PrinterColumn("Completed", ".status.completionTime", "date", priority=1),
            PrinterColumn("Tokens", ".status.tokenUsage.totalTokens", "integer", priority=1),
            PrinterColumn("Cost", ".status.cost", priority=1),
        ),
    )

    spec: TaskSpec
    status: TaskStatus = Field(default_factory=TaskStatus)

    @property
    def finished(self) -> bool:
        return self.status.phase in TERMINAL_PHASES
