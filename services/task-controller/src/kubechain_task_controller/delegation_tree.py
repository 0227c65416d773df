"""Which Tasks work for which, by their calls for sub-agents, and what they all used.

Only a Task that owns the call, and a call that owns the Task, count: a ``delegatedFrom`` alone says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubechain_common.api.turn_calls import is_owner
from kubechain_common.api.v1alpha1 import Task
from kubechain_task_controller.core.plan import Above
from kubechain_task_controller.core.spent import Spent, spent_by
from kubechain_task_controller.watched import BY_DELEGATING_TASK, Watched


class DelegationTree:
    """Walks the informers of Tasks and calls; asked about Tasks with a budget, and about those that work for one."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def spent_below(self, task: Task) -> Spent:
        """What the Tasks used that work for this one, directly or not."""
        spent = Spent()
        for below in self._below(task.uid, {task.uid}):
            spent += spent_by(below.status)
        return spent

    def find_budgets_above(self, task: Task) -> tuple[Above, ...]:
        """The Tasks with a budget for which this one works, the nearest first."""
        found: list[Above] = []
        seen, at = {task.uid}, self._parent(task)
        while at is not None and at.uid not in seen:
            seen.add(at.uid)
            if at.spec.budget is not None:
                found.append(Above(at, spent_by(at.status) + self.spent_below(at)))
            at = self._parent(at)
        return tuple(found)

    def _below(self, uid: str, seen: set[str]) -> Iterator[Task]:
        for call in self._watched.calls.by_index(BY_DELEGATING_TASK, uid):
            for task in self._watched.tasks.by_owner(call.uid):
                if task.uid not in seen:
                    seen.add(task.uid)
                    yield task
                    yield from self._below(task.uid, seen)

    def _parent(self, task: Task) -> Task | None:
        origin = task.spec.delegated_from
        if origin is None:
            return None
        call = self._watched.calls.get(task.namespace, origin.tool_call_ref.name)
        if call is None or not any(owner.uid == call.uid for owner in task.metadata.owner_references):
            return None
        parent = self._watched.tasks.get(task.namespace, call.spec.task_run_ref.name)
        return parent if parent is not None and is_owner(parent, call) else None
