"""Is an answer still wanted? Asked before a call that may have been made already, so that nothing is paid for twice.

A delivery after the first may follow a crash between the call and its acknowledgement. Then either the result is still
in its stream, or the task-controller has taken it and moved the Task on; and a Task that was cancelled or deleted
meanwhile wants nothing at all. The order matters: the controller writes the Task before it takes the result off the
stream. That the turn has begun may not be written yet (docs/decisions/0020): then its tool results are there.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from kubechain_common.api.turn_calls import is_owner, pending_names
from kubechain_common.api.v1alpha1 import Resource, Task, TaskRunToolCall
from kubechain_common.kube.errors import ForbiddenError, NotFoundError
from kubechain_common.messages import LLMRequest
from kubechain_common.messages.topology import LLM_RESULTS, llm_result_subject
from kubechain_common.telemetry.logging import get_logger

log = get_logger(__name__)

R = TypeVar("R", bound=Resource)


class TaskReader(Protocol):
    """Reads objects from the API server, not from a cache."""

    async def get(self, kind: type[R], namespace: str, name: str) -> R: ...


class ResultLookup(Protocol):
    async def has_message(self, stream: str, subject: str) -> bool: ...


class TaskProbe:
    """Answers from the results stream first, then from the Task itself."""

    def __init__(self, bus: ResultLookup, kube: TaskReader) -> None:
        self._bus = bus
        self._kube = kube

    async def is_wanted(self, request: LLMRequest) -> bool:
        """False when the turn has its answer or needs none; True also when the gateway has no right to read Tasks.

        Raises MessagingError, and UnavailableError when the API server can not be asked.
        """
        ref = request.task
        result = llm_result_subject(ref.namespace, ref.uid, request.turn, request.conversation)
        if await self._bus.has_message(LLM_RESULTS.name, result):
            return False
        try:
            task = await self._kube.get(Task, ref.namespace, ref.name)
            return task.uid == ref.uid and is_waiting_for(task, request.turn) and await self._has_its_results(task)
        except NotFoundError:
            return False
        except ForbiddenError as error:
            log.warning("may not ask for the task, calling the model", task=ref.name, error=str(error))
            return True

    async def _has_its_results(self, task: Task) -> bool:
        """False while the Task waits for a tool: only a future that is lost, with etcd gone back, saw its result."""
        for name in pending_names(task):
            try:
                call = await self._kube.get(TaskRunToolCall, task.namespace, name)
            except NotFoundError:  # the API server did not take it, and that is what the model reads
                continue
            if is_owner(task, call) and not call.finished:
                return False
        return True


def is_waiting_for(task: Task, turn: int) -> bool:
    """May the Task wait for the answer to this turn? Pure."""
    return not task.metadata.deleting and not task.spec.cancel and task.asked_turn == turn
