"""Builds the TaskRunToolCalls of a turn: same turn, same names, however often it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from kubechain_common.api.names import tool_call_labels
from kubechain_common.api.turn_calls import pending_names
from kubechain_common.api.v1alpha1.agent import DEFAULT_MAX_DELEGATION_DEPTH, Agent
from kubechain_common.api.v1alpha1.conversation import MessageToolCall
from kubechain_common.api.v1alpha1.meta import ObjectMeta, Ref
from kubechain_common.api.v1alpha1.task import Task
from kubechain_common.api.v1alpha1.taskruntoolcall import Delegation, TaskRunToolCall, TaskRunToolCallSpec
from kubechain_task_controller.core.tool_catalog import ToolCatalog

_MAX_TOOL_NAME = 253
NAMELESS = "unnamed"


def calls_to_forbid(task: Task, children: Mapping[str, TaskRunToolCall]) -> tuple[str, ...]:
    """The turn's calls that have not ended, also those that nobody has seen yet."""
    return tuple(name for name in pending_names(task) if name not in children or not children[name].finished)


def build_tool_call(
    task: Task, name: str, call: MessageToolCall, catalog: ToolCatalog, requested_at: datetime, agent: Agent | None
) -> TaskRunToolCall:
    """The child for one call.

    A name that is not in the catalogue gives a child without a target, which fails with a sentence.
    """
    entry = catalog.find(call.function.name)
    return TaskRunToolCall(
        kind="TaskRunToolCall",
        metadata=ObjectMeta(
            name=name,
            namespace=task.namespace,
            labels=tool_call_labels(task.name, task.uid),
            owner_references=[task.build_owner_reference()],
        ),
        spec=TaskRunToolCallSpec(
            tool_call_id=call.id,
            task_run_ref=Ref(name=task.name),
            tool_ref=Ref(name=call.function.name[:_MAX_TOOL_NAME] or NAMELESS),
            tool_type=entry.type if entry else None,
            target=entry.target if entry else None,
            arguments=call.function.arguments,
            requested_at=requested_at,
            span_context=task.status.span_context,
            delegation=_hand_down(task, agent) if entry and entry.type == "DelegateToAgent" else None,
        ),
    )


def _hand_down(task: Task, agent: Agent | None) -> Delegation:
    """A sub-agent's Task ends with the one that asks for it, and counts as one delegation more."""
    above = task.spec.delegated_from.depth if task.spec.delegated_from else 0
    limit = agent.spec.max_delegation_depth if agent else None
    return Delegation(
        depth=above + 1,
        max_depth=DEFAULT_MAX_DELEGATION_DEPTH if limit is None else limit,
        deadline=_deadline_of(task),
    )


def _deadline_of(task: Task) -> datetime | None:
    seconds, started = task.spec.active_deadline_seconds, task.status.start_time
    if seconds is None or started is None:
        return None
    try:
        return started + timedelta(seconds=seconds)
    except OverflowError:  # beyond the year 9999
        return None
