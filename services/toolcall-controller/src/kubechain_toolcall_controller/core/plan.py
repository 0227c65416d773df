"""What the decision looks at, and what it asks for.

A plan is carried out in one order: stored texts, what is taken back, the deadline's decision, status, events, messages.
Each part is idempotent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from kubechain_common.api.stored_text import StoredText
from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, TaskRunToolCallStatus
from kubechain_common.messages import ToolRequest, ToolResult
from kubechain_common.messages.human import HumanRequest, HumanResult
from kubechain_toolcall_controller.core.sub_task import SubTask

TASK_ASKED_AFTER = 5.0
"""Seconds after which a call that was not sent yet is not sent without a look at its Task, which may have ended."""


@dataclass(frozen=True)
class PlannedEvent:
    """A Kubernetes Event about the call."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class CallSnapshot:
    """Everything that the next step of a call depends on.

    ``server`` is the MCPServer that the call is for, if it exists, and ``server_asked`` says that the API server was
    asked for it; ``channel`` is the ContactChannel through which its person is asked, if there is one. ``sent_at`` is
    when this process published the request, None if it does not know of one. ``asked`` is what human-bridge reports of
    asking. ``stopped`` is what came of taking the request back, if it was: True when the call had not begun and never
    will, False when it had begun, or may have. ``task_over`` says that the Task has ended or is gone; it is asked for a
    call that comes late. ``sub_task`` is what is known of the Task of a sub-agent; ``new_span`` is used if that is
    created now.
    """

    call: TaskRunToolCall
    now: datetime
    server: MCPServer | None = None
    server_asked: bool = False
    result: ToolResult | None = None
    sent_at: datetime | None = None
    stopped: bool | None = None
    task_over: bool | None = None
    channel: ContactChannel | None = None
    asked: HumanResult | None = None
    sub_task: SubTask = field(default_factory=SubTask)
    new_span: SpanContext = field(default_factory=SpanContext)

    @property
    def asks_task_first(self) -> bool:
        """True for a call so late that its Task may have ended, until that is known."""
        age = (self.now - (self.call.spec.requested_at or self.now)).total_seconds()
        return age > TASK_ASKED_AFTER and self.task_over is None


@dataclass(frozen=True)
class CallPlan:
    """The next step of a call.

    ``consumed`` says that the snapshot's result is done with once the status is written, ``noted`` that its report of
    asking is. ``question`` is the request to a person, to be published unless it, or its report, is there already;
    ``decision`` is what nobody decided in time. ``withdraw`` takes back what was requested, ``withdraw_question`` the
    request to a person alone, ``cancel_sub_task`` what a sub-agent does. ``stop``, ``ask_task`` and ``ask_server`` are
    questions, to be answered in a new snapshot: take the request back and find out whether the call had begun; find out
    whether its Task still wants it; whether its MCPServer exists. So are ``delegate``, the Task of a sub-agent that is
    to be created, and ``ask_sub_task``: what does the API server know of it? ``stored`` is kept before the status that
    points at it is written.
    """

    status: TaskRunToolCallStatus | None = None
    consumed: bool = False
    request: ToolRequest | None = None
    events: tuple[PlannedEvent, ...] = ()
    requeue_after: float | None = None
    stop: bool = False
    ask_task: bool = False
    ask_server: bool = False
    withdraw: bool = False
    question: HumanRequest | None = None
    decision: Decision | None = None
    noted: bool = False
    withdraw_question: bool = False
    delegate: Task | None = None
    ask_sub_task: bool = False
    cancel_sub_task: bool = False
    stored: tuple[StoredText, ...] = ()


NOTHING = CallPlan()
