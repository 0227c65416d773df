"""What the decision looks at, and what it asks for.

A plan is carried out in the order of its fields; each part is idempotent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kubechain_common.api.v1alpha1 import MCPServer, TaskRunToolCall
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCallStatus
from kubechain_common.messages import ToolRequest, ToolResult


@dataclass(frozen=True)
class PlannedEvent:
    """A Kubernetes Event about the call."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class CallSnapshot:
    """Everything that the next step of a call depends on.

    ``server`` is the MCPServer that the call is for, if it exists. ``sent_at`` is when this process published the
    request, None if it does not know of one. ``stopped`` is what came of taking the request back, if it was: True when
    the call had not begun and never will, False when it had begun, or may have. ``task_over`` says that the Task has
    ended or is gone; it is asked for a call that comes late.
    """

    call: TaskRunToolCall
    now: datetime
    server: MCPServer | None = None
    result: ToolResult | None = None
    sent_at: datetime | None = None
    stopped: bool | None = None
    task_over: bool | None = None


@dataclass(frozen=True)
class CallPlan:
    """The next step of a call. ``consumed`` says that the snapshot's result is done with once the status is written.

    ``withdraw`` takes the request back. ``stop`` and ``ask_task`` are questions, to be answered in a new snapshot: take
    the request back and find out whether the call had begun; find out whether its Task still wants it.
    """

    status: TaskRunToolCallStatus | None = None
    consumed: bool = False
    request: ToolRequest | None = None
    events: tuple[PlannedEvent, ...] = ()
    requeue_after: float | None = None
    stop: bool = False
    ask_task: bool = False
    withdraw: bool = False


NOTHING = CallPlan()
