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
from kubechain_common.api.v1alpha1.status import Conditions, ObservedGeneration, SpanContext, Status

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

    task_ref: Annotated[Ref, refers_to("a Task"), Field(description="The earlier Task; this one waits for its end.")]
    turn: (
        Annotated[int, Field(ge=1, description="The last turn to be taken over. Absent: the whole conversation.")]
        | None
    ) = None


class DelegatedFrom(KubeModel):
    """The call of another agent's Task that this Task answers. Leave it out: KubeChain writes it."""

    tool_call_ref: Annotated[Ref, refers_to("a TaskRunToolCall"), Field(description="That call.")]
    depth: Annotated[int, Field(ge=1, description="How many delegations lead here.")]
    span_context: (
        Annotated[SpanContext, Field(description="The span of that call, in whose trace this Task is.")] | None
    ) = None


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

    tokens: Annotated[int, Field(ge=1, description="Tokens, read and written. Absent: no limit.")] | None = None
    cost: (
        Annotated[
            str,
            amount("cost"),
            Field(description="Money, by spec.prices of the LLMs: a decimal in quotes. Absent: no limit."),
        ]
        | None
    ) = None
    currency: Annotated[CurrencyCode, Field(description="Of cost. Absent: USD.")] | None = None


class TaskSpec(KubeModel):
    """What an Agent is to do, and what that may take."""

    model_config = ConfigDict(
        json_schema_extra=validations(at_creation(_SOMETHING_TO_DO), unless("self == oldSelf", _CHANGES))
    )

    agent_ref: Annotated[Ref, refers_to("an Agent"), Field(description="The Agent that does it.")]
    user_message: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=MAX_CONTENT,
                description="What is asked of the Agent. A Task has this or a contextWindow.",
            ),
        ]
        | None
    ) = None
    context_window: (
        Annotated[
            list[GivenMessage],
            Field(
                min_length=1,
                max_length=1000,
                description="The whole conversation to go on with, in place of userMessage.",
                json_schema_extra=validations(*_GIVEN_WINDOW),
            ),
        ]
        | None
    ) = None
    context_window_from: ContextWindowSource | None = None
    max_turns: (
        Annotated[
            int,
            Field(
                ge=1,
                le=10000,
                description="Turns in which the model has to come to its final answer; then the Task fails. Absent:"
                " maxTurns of the Agent, which is 50 unless set.",
            ),
        ]
        | None
    ) = None
    active_deadline_seconds: (
        Annotated[
            int,
            Field(
                ge=1, description="Seconds after status.startTime at which an unfinished Task fails. Absent: no limit."
            ),
        ]
        | None
    ) = None
    ttl_seconds_after_finished: (
        Annotated[
            int, Field(ge=0, description="Seconds after its end at which the Task is deleted. Absent: it is kept.")
        ]
        | None
    ) = None
    delegated_from: DelegatedFrom | None = None
    budget: TaskBudget | None = None
    cancel: (
        Annotated[bool, Field(description="End the Task, and take back what is under way. It can not be undone.")]
        | None
    ) = None


class UsageBefore(KubeModel):
    """What had been used before a day (2026-11-28) or a month (2026-11) in UTC began."""

    period: Annotated[str, Field(max_length=10, description="The day or the month.")]
    total_tokens: Annotated[int, Field(description="Tokens used before it began.")] = 0
    cost: Annotated[Sum, Field(description="What they cost, in the Task's currency.")] | None = None


class TaskStatus(Status):
    """Where the Task stands, and its conversation."""

    phase: TaskPhase | None = None
    ready: Annotated[bool, Field(description="False while the Task waits for something, and once it has failed.")] = (
        False
    )
    status: (
        Annotated[
            Literal["Ready", "Error", "Pending"],
            Field(
                description="Ready while it runs and once it has an answer, Pending while it waits, Error once it"
                " has failed."
            ),
        ]
        | None
    ) = None
    status_detail: Annotated[
        str, Field(max_length=32768, description="What it does, waits for, or ended with, in a sentence.")
    ] = ""
    turn: Annotated[int, Field(description="The turn of the model that is under way, or was the last.")] = 0
    start_time: (
        Annotated[Timestamp, Field(description="When a controller saw it first. Waiting for an Agent counts.")] | None
    ) = None
    completion_time: Annotated[Timestamp, Field(description="When it ended.")] | None = None
    message_count: Annotated[
        int, Field(description="Messages of the whole conversation, those that are kept elsewhere included.")
    ] = 0
    inherited_messages: (
        Annotated[
            int,
            Field(
                description="Of a Task that goes on with a conversation: how many messages were before its first turn."
            ),
        ]
        | None
    ) = None
    token_usage: (
        Annotated[TokenUsage, Field(description="Tokens of all its turns, as the provider counted them.")] | None
    ) = None
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
    user_msg_preview: Annotated[
        str, Field(max_length=256, description="The beginning of what the user said: 50 characters.")
    ] = ""
    output: Annotated[str, Field(max_length=MAX_CONTENT, description="The final answer.")] = ""
    error: Annotated[str, Field(max_length=32768, description="Why the Task failed.")] = ""
    context_window: Annotated[
        list[Message],
        Field(
            max_length=20000,
            description="The conversation. Older messages and long texts are kept beside the Task, and pointed at.",
        ),
    ] = Field(default_factory=list)
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
    observed_generation: ObservedGeneration | None = None
    conditions: Annotated[
        Conditions,
        Field(
            description="Complete or Failed at the end; WithinNamespaceBudget if it waited for a budget, and"
            " ResponseFormat where the Agent has a responseFormat."
        ),
    ] = Field(default_factory=list)


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

    @property
    def asked_turn(self) -> int | None:
        """The turn that the model is asked for, or may be: a request may go out before the status says that its turn
        has begun (docs/decisions/0020). None where that can not be.
        """
        match self.status.phase:
            case TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM:
                return self.status.turn
            case None | TaskPhase.PENDING | TaskPhase.TOOL_CALLS_PENDING:
                return self.status.turn + 1
            case _:
                return None
