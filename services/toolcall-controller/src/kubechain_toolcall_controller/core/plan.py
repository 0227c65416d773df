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
    """The next step of a call."""

    status: TaskRunToolCallStatus | None = None
    """The status to be written; None leaves it as it is."""
    consumed: bool = False
    """Whether the snapshot's result is done with once the status is written."""
    request: ToolRequest | None = None
    """The request to mcp-host, to be published."""
    events: tuple[PlannedEvent, ...] = ()
    requeue_after: float | None = None
    """Seconds after which the call is looked at again, even if nothing changes."""
    stop: bool = False
    """Whether to take the request back and find out if the call had begun: a new snapshot has the answer."""
    ask_task: bool = False
    """Whether to find out if the call's Task still wants it: a new snapshot has the answer."""
    ask_server: bool = False
    """Whether to find out if the call's MCPServer exists: a new snapshot has the answer."""
    withdraw: bool = False
    """Whether to take back everything that was requested."""
    question: HumanRequest | None = None
    """The request to a person, to be published unless it, or its report, is there already."""
    decision: Decision | None = None
    """The deadline's decision, which is written into the spec because nobody decided in time."""
    noted: bool = False
    """Whether the snapshot's report of asking is done with once the status is written."""
    withdraw_question: bool = False
    """Whether to take back the request to a person alone."""
    delegate: Task | None = None
    """The Task of a sub-agent that is to be created: a new snapshot has what came of it."""
    ask_sub_task: bool = False
    """Whether to ask the API server for the sub-agent's Task: a new snapshot has the answer."""
    cancel_sub_task: bool = False
    """Whether to cancel the sub-agent's Task."""
    stored: tuple[StoredText, ...] = ()
    """The texts that are kept before the status that points at them is written."""


NOTHING = CallPlan()
