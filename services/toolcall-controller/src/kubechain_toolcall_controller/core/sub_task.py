"""The Task that answers a delegation: what is known of it, and how it is made."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime

from kubechain_common.api.names import sub_task_labels, sub_task_name
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import ObjectMeta, Ref
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.api.v1alpha1.task import DelegatedFrom, TaskSpec
from kubechain_common.api.v1alpha1.taskruntoolcall import Delegation


@dataclass(frozen=True)
class SubTask:
    """What is known of a call's sub-agent.

    ``task`` is its Task as our cache has it, which is without its texts; with ``asked`` it is as the API server has it:
    whole, or None because there is none any more. ``begun_before`` says that another call of this name had one,
    ``refused`` why the API server did not take it, ``forbidden`` that the call was taken back before it began.
    """

    task: Task | None = None
    asked: bool = False
    begun_before: bool = False
    forbidden: bool = False
    refused: str = ""


def read_message(arguments: str) -> str | None:
    """The message for the sub-agent; None when the arguments hold none."""
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    message = parsed.get("message") if isinstance(parsed, dict) else None
    if not isinstance(message, str) or not message.strip():
        return None
    return message.encode(errors="replace").decode()  # half of a surrogate pair is no text


def build_sub_task(
    call: TaskRunToolCall, agent: str, message: str, delegation: Delegation, *, span: SpanContext, now: datetime
) -> Task:
    """The Task that answers the call. The same call gives it the same name, and it goes when its call goes."""
    return Task(
        kind="Task",
        metadata=ObjectMeta(
            name=sub_task_name(call.name, agent),
            namespace=call.namespace,
            labels=sub_task_labels(call.name, call.uid),
            owner_references=[call.build_owner_reference()],
        ),
        spec=TaskSpec(
            agent_ref=Ref(name=agent),
            user_message=message,
            active_deadline_seconds=_seconds_until(delegation.deadline, now),
            delegated_from=DelegatedFrom(tool_call_ref=Ref(name=call.name), depth=delegation.depth, span_context=span),
        ),
    )


def name_of_sub_task(call: TaskRunToolCall) -> str | None:
    """The name of the Task that answers the call; None for a call that is not for an agent."""
    target = call.spec.target
    return sub_task_name(call.name, target.name) if call.spec.tool_type == "DelegateToAgent" and target else None


def is_answered_by(call: TaskRunToolCall, task: Task) -> bool:
    return any(owner.uid == call.uid for owner in task.metadata.owner_references)


def _seconds_until(deadline: datetime | None, now: datetime) -> int | None:
    return max(1, math.ceil((deadline - now).total_seconds())) if deadline is not None else None
