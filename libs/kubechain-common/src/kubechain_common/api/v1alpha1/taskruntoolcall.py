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
from kubechain_common.api.v1alpha1.status import Conditions, SpanContext, Status

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

    name: ObjectName
    tool: Annotated[str, Field(max_length=253)] | None = None


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

    approved: bool
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
    """What a call hands down to the Task of a sub-agent.

    ``depth`` is how many delegations lead to that Task, ``maxDepth`` how many the agent that makes the call allows;
    ``deadline`` is the end of the Task that makes it.
    """

    depth: Annotated[int, Field(ge=1)]
    max_depth: Annotated[int, Field(ge=0)]
    deadline: Timestamp | None = None


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
    model_config = ConfigDict(json_schema_extra=validations(unless("self == oldSelf", _CHANGES)))

    tool_call_id: Annotated[str, Field(min_length=1, max_length=1024)]
    task_run_ref: Annotated[Ref, refers_to("a Task")]
    tool_ref: Ref
    tool_type: ToolType | None = None
    target: ToolTarget | None = None
    arguments: Annotated[str, Field(max_length=MAX_CONTENT)]
    requested_at: Annotated[MicroTime, AnyMoment] | None = None
    span_context: SpanContext | None = None
    delegation: Delegation | None = None
    decision: Decision | None = None
    response: HumanResponse | None = None
    cancel: Annotated[bool, Field(description="Take the call back; the Task goes on.")] | None = None


class TaskRunToolCallStatus(Status):
    phase: ToolCallPhase = ToolCallPhase.PENDING
    status: (
        Literal[
            "Pending", "Ready", "Error", "Succeeded", "AwaitingHumanApproval", "AwaitingHumanInput", "AwaitingSubAgent"
        ]
        | None
    ) = None
    status_detail: Annotated[str, Field(max_length=32768)] = ""
    reason: Annotated[str, Field(max_length=253)] = ""
    external_call_id: Annotated[str, Field(max_length=64)] = Field(default="", alias="externalCallID")
    result: Annotated[str, Field(max_length=MAX_CONTENT)] = ""
    images: Annotated[
        list[ImageSource],
        Field(max_length=MAX_IMAGES, description="What the tool returned to be looked at; the result names them."),
    ] = Field(default_factory=list)
    error: Annotated[str, Field(max_length=32768)] = ""
    start_time: Timestamp | None = None
    completion_time: Timestamp | None = None
    observed_generation: int | None = None
    conditions: Conditions = Field(default_factory=list)


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
