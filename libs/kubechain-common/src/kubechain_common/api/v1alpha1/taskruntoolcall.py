"""TaskRunToolCall: one tool call of one turn of a Task.

``spec.decision`` and ``spec.response`` are how a person answers with kubectl, and ``spec.cancel`` is how a person, or
the Task that ended early, takes the call back: the only fields that may change, each set once.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from kubechain_common.api.v1alpha1.conversation import MAX_CONTENT, MAX_IMAGES, ImageSource
from kubechain_common.api.v1alpha1.meta import (
    AnyMoment,
    CRDInfo,
    KubeModel,
    MicroTime,
    ObjectName,
    PrinterColumn,
    Ref,
    Resource,
    Timestamp,
    refers_to,
)
from kubechain_common.api.v1alpha1.rules import Rule, cel, cel_all, immutable, stays_true, unless, validations
from kubechain_common.api.v1alpha1.status import Conditions, ObservedGeneration, SpanContext, Status

ToolType = Literal["MCP", "HumanContact", "DelegateToAgent"]


class ToolCallPhase(StrEnum):
    """Where a call stands; Succeeded, Failed and ToolCallRejected are final."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TOOL_CALL_REJECTED = "ToolCallRejected"


HUMAN_ASKED = "HumanAsked"
"""Condition: True once the request has reached the contact channel."""

ANSWERED = "Answered"
"""Condition: True once a person, or the deadline, has answered; its message says who and how."""

TERMINAL_PHASES = frozenset({ToolCallPhase.SUCCEEDED, ToolCallPhase.FAILED, ToolCallPhase.TOOL_CALL_REJECTED})


class ToolTarget(KubeModel):
    """What the model's tool name stood for when the call was made: a server and its tool, a channel, or an agent."""

    name: Annotated[ObjectName, Field(description="Name of the MCPServer, ContactChannel or Agent.")]
    tool: Annotated[str, Field(max_length=253, description="Name of the tool, as its server calls it.")] | None = None


class Answer(KubeModel):
    """Who answered, by which road (absent: kubectl), and when."""

    by: (
        Annotated[str, Field(max_length=253, description="Who answers. Leave it out: the API server writes your name.")]
        | None
    ) = None
    via: (
        Annotated[
            Literal["cli", "page", "link", "slack", "humanlayer", "webhook", "deadline"],
            Field(description="By which road. Absent: kubectl."),
        ]
        | None
    ) = None
    at: Annotated[Timestamp, Field(description="When. Leave it out: the API server writes it.")] | None = None


# Braces only: the API server can not parse JSON, but most slips end here and not the call.
_JSON_OBJECT = cel(
    "self.trim().startsWith('{') && self.trim().endsWith('}')", "arguments have to be a JSON object, as text"
)


class Decision(Answer):
    """A person's verdict on a call that waits for approval; ``arguments`` take the place of the model's."""

    approved: Annotated[bool, Field(description="true lets the tool run, false rejects the call.")]
    comment: (
        Annotated[str, Field(max_length=65536, description="Why. The model reads it when the call is rejected.")] | None
    ) = None
    arguments: (
        Annotated[
            str,
            Field(
                max_length=MAX_CONTENT,
                description="JSON object, as text: the tool gets it in place of the model's.",
                json_schema_extra=validations(_JSON_OBJECT),
            ),
        ]
        | None
    ) = None


class HumanResponse(Answer):
    """A person's answer to a question of the agent."""

    message: Annotated[
        str, Field(min_length=1, max_length=MAX_CONTENT, description="The answer: the model reads it as the result.")
    ]


class Delegation(KubeModel):
    """What a call hands down to the Task of a sub-agent."""

    depth: Annotated[int, Field(ge=1, description="How many delegations lead to that Task.")]
    max_depth: Annotated[int, Field(ge=0, description="How many the agent that makes the call allows.")]
    deadline: (
        Annotated[
            Timestamp, Field(description="When the Task that makes the call has to have ended. Absent: no deadline.")
        ]
        | None
    ) = None


def _set_once(field: str) -> Rule:
    return cel(
        f"!has(oldSelf.{field}) || (has(self.{field}) && self.{field} == oldSelf.{field})",
        f"{field} was given already and can not be changed",
    )


_CHANGES = cel_all(
    *(
        immutable(field)
        for field in (
            "toolCallId",
            "taskRunRef",
            "toolRef",
            "toolType",
            "target",
            "arguments",
            "requestedAt",
            "spanContext",
            "delegation",
        )
    ),
    _set_once("decision"),
    _set_once("response"),
    stays_true("cancel", "a cancelled call stays cancelled"),
    message="only decision, response and cancel may be set, each once",
)


class TaskRunToolCallSpec(KubeModel):
    """What the model asked for, and what a person said to it."""

    model_config = ConfigDict(json_schema_extra=validations(unless("self == oldSelf", _CHANGES)))

    tool_call_id: Annotated[
        str, Field(min_length=1, max_length=1024, description="Id of the call, as the provider gave it.")
    ]
    task_run_ref: Annotated[Ref, refers_to("a Task"), Field(description="The Task whose model asked for it.")]
    tool_ref: Annotated[Ref, Field(description="The tool, by the name that the model called.")]
    tool_type: (
        Annotated[
            ToolType,
            Field(
                description="What is called: a tool of an MCPServer (MCP), a person (HumanContact) or an Agent"
                " (DelegateToAgent). Absent: the agent had no tool of this name."
            ),
        ]
        | None
    ) = None
    target: ToolTarget | None = None
    arguments: Annotated[str, Field(max_length=MAX_CONTENT, description="The JSON text exactly as the model wrote it.")]
    requested_at: Annotated[MicroTime, AnyMoment, Field(description="When the Task asked for it.")] | None = None
    span_context: Annotated[SpanContext, Field(description="The span of the Task, in whose trace it is.")] | None = None
    delegation: Delegation | None = None
    decision: Decision | None = None
    response: HumanResponse | None = None
    cancel: Annotated[bool, Field(description="Take the call back; the Task goes on.")] | None = None


class TaskRunToolCallStatus(Status):
    """Where the call stands, and what came of it."""

    phase: ToolCallPhase = ToolCallPhase.PENDING
    status: (
        Annotated[
            Literal[
                "Pending",
                "Ready",
                "Error",
                "Succeeded",
                "AwaitingHumanApproval",
                "AwaitingHumanInput",
                "AwaitingSubAgent",
            ],
            Field(description="Whom or what it waits for, that it runs (Ready), or how it ended."),
        ]
        | None
    ) = None
    status_detail: Annotated[str, Field(max_length=32768, description="The same in a sentence.")] = ""
    reason: Annotated[str, Field(max_length=253, description="Why it ended so, in one word for programs.")] = ""
    external_call_id: Annotated[
        str, Field(max_length=64, description="Id of its request to a person, at HumanLayer, in mails and webhooks.")
    ] = Field(default="", alias="externalCallID")
    result: Annotated[str, Field(max_length=MAX_CONTENT, description="What came of it: the model reads this.")] = ""
    images: Annotated[
        list[ImageSource],
        Field(max_length=MAX_IMAGES, description="What the tool returned to be looked at; the result names them."),
    ] = Field(default_factory=list)
    error: Annotated[str, Field(max_length=32768, description="Why there is no result: the model reads this.")] = ""
    start_time: (
        Annotated[Timestamp, Field(description="When it was sent, or began to wait for a person or Agent.")] | None
    ) = None
    completion_time: Annotated[Timestamp, Field(description="When it ended.")] | None = None
    observed_generation: ObservedGeneration | None = None
    conditions: Annotated[
        Conditions,
        Field(
            description="HumanAsked once the request has reached its contact channel, Answered once a person or the"
            " deadline has answered."
        ),
    ] = Field(default_factory=list)


def _answer(field: str, tool_type: ToolType, otherwise: str) -> Rule:
    """The rule for a new answer. That it stays as it is, the spec's rule says."""
    checks = cel_all(
        cel(f"self.spec.?toolType.orValue('MCP') == '{tool_type}'", otherwise),
        cel(
            "!(self.?status.?phase.orValue('') in ['Succeeded', 'Failed', 'ToolCallRejected'])",
            f"the tool call has ended: a {field} comes too late",
        ),
        message=f"this call takes no {field}",
        field=f"spec.{field}",
    )
    nothing_new = f"!has(self.spec.{field}) || oldSelf.?spec.?{field}.hasValue()"
    return unless(nothing_new, checks, optional_old_self=True)


class TaskRunToolCall(Resource):
    """One tool call, from the model's wish to the tool's result."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            _answer(
                "decision",
                "MCP",
                "decision approves or rejects the call of a tool: a question is answered with response",
            ),
            _answer(
                "response",
                "HumanContact",
                "response answers a question to a person: a tool call is approved or rejected with decision",
            ),
        )
    )

    crd: ClassVar[CRDInfo] = CRDInfo(
        kind="TaskRunToolCall",
        plural="taskruntoolcalls",
        singular="taskruntoolcall",
        short_names=("trtc",),
        columns=(
            PrinterColumn("Phase", ".status.phase"),
            PrinterColumn("TaskRun", ".spec.taskRunRef.name"),
            PrinterColumn("Tool", ".spec.toolRef.name"),
            PrinterColumn("Status", ".status.status", priority=1),
            PrinterColumn("Detail", ".status.statusDetail", priority=1),
            PrinterColumn("Started", ".status.startTime", "date", priority=1),
            PrinterColumn("Completed", ".status.completionTime", "date", priority=1),
            PrinterColumn("Error", ".status.error", priority=1),
        ),
        selectable=(".status.externalCallID",),
    )

    spec: TaskRunToolCallSpec
    # A new call reads as Pending without a write of its own: the API server fills the default in.
    status: Annotated[TaskRunToolCallStatus, Field(json_schema_extra={"default": {"phase": "Pending"}})] = Field(
        default_factory=TaskRunToolCallStatus
    )

    @property
    def finished(self) -> bool:
        return self.status.phase in TERMINAL_PHASES

    @property
    def awaits_human(self) -> bool:
        """True while a person may still answer, and nobody has."""
        answered = self.spec.decision is not None or self.spec.response is not None
        return not answered and self.status.status in ("AwaitingHumanApproval", "AwaitingHumanInput")


def tool_text(call: TaskRunToolCall) -> str:
    """What the model reads about a call that has ended: the result, or why there is none; never nothing.

    The message in the window and whoever follows its reference later use this same function, so that both read the
    same text.
    """
    status = call.status
    if status.phase == ToolCallPhase.SUCCEEDED:
        return status.result or "[no content]"
    if status.phase == ToolCallPhase.TOOL_CALL_REJECTED:
        return status.result or "The call was rejected by a human."
    return f"Error: {status.error or status.status_detail or 'the tool call failed'}"
