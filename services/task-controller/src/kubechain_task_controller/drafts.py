"""Steps that are taken, but not written yet: a write that the next one makes needless is left out.

That a turn begins follows from what is written. So its request goes to the model at once, and the status that says so
stays here as a draft. An answer that comes soon is written together with it. Otherwise the draft is written by itself:
when nothing else has been written for a moment, and after two seconds whatever else there is to do. A crash loses the
draft; the next leader decides anew, in doubt whether a request was sent (docs/decisions/0020).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.task import TaskStatus
from kubechain_common.kube.informer import Key
from kubechain_common.kube.write_activity import WriteActivity

HOLD = 0.25
"""Seconds in which an answer is waited for."""
HOLD_AT_MOST = 2.0
"""Seconds for which a draft is held while this process writes other things."""
_QUIET = 0.05


@dataclass(frozen=True)
class Draft:
    """The Task as the API server has it, and with the status of the step that was taken, since when."""

    base: Task
    task: Task
    since: float


class Drafts:
    """The drafts of one term of leadership, by the uid of their Tasks; ``wake`` is told when one is due."""

    def __init__(self, activity: WriteActivity, wake: Callable[[Key], None]) -> None:
        self._activity = activity
        self._wake = wake
        self._held: dict[str, Draft] = {}
        self._waiting: dict[str, None] = {}
        self._due: set[str] = set()
        self._never: set[str] = set()
        self._doubtful: set[Key] = set()
        self._filled = asyncio.Event()

    def allows(self, task: Task) -> bool:
        """False for a Task whose steps are to be written one by one."""
        return task.uid not in self._never

    def put(self, task: Task, status: TaskStatus) -> Task:
        """The Task with ``status``, which is a draft from now on."""
        ahead = task.model_copy(update={"status": status})
        self._held[task.uid] = Draft(task, ahead, asyncio.get_running_loop().time())
        self._waiting[task.uid] = None
        self._filled.set()
        return ahead

    def apply(self, task: Task) -> Task:
        """The Task as it stands with its draft. One that was made of another status is dropped."""
        draft = self._held.get(task.uid)
        if draft is None:
            return task
        if draft.base.metadata.resource_version != task.metadata.resource_version:
            if draft.base.status != task.status:
                self._lose(task)
                return task
            ahead = task.model_copy(update={"status": draft.task.status})
            draft = self._held[task.uid] = replace(draft, base=task, task=ahead)
        return draft.task

    def base_of(self, task: Task) -> Task:
        """The Task as the API server has it."""
        draft = self._held.get(task.uid)
        return draft.base if draft is not None else task

    def is_due(self, task: Task) -> bool:
        """Whether there is a draft that is to be written now."""
        return task.uid in self._due

    def settle(self, task: Task) -> None:
        """The draft is written."""
        self._drop(task.uid)

    def give_up(self, task: Task) -> bool:
        """Has the steps of this Task written one by one, the present one, too. True when it had a draft."""
        self._never.add(task.uid)
        return self._lose(task)

    def forget(self, task: Task) -> None:
        """The Task has ended, or is gone."""
        self._drop(task.uid)
        self._never.discard(task.uid)
        self._doubtful.discard(task.key)

    def doubt(self, key: Key) -> None:
        """Notes that the Task's next request may have been sent already, though nothing here or there says so."""
        self._doubtful.add(key)

    def is_doubtful(self, task: Task) -> bool:
        return task.key in self._doubtful

    def end_doubt(self, task: Task) -> None:
        """The request was looked for, and sent if need be."""
        self._doubtful.discard(task.key)

    async def run(self) -> None:
        """Wakes the Tasks whose drafts are due, until cancelled."""
        while True:
            await self._filled.wait()
            if not self._waiting:
                self._filled.clear()
                continue
            pause = self._look(asyncio.get_running_loop().time())
            if pause:
                await asyncio.sleep(pause)

    def _look(self, now: float) -> float:
        """Has the drafts written whose time has come; the seconds until the next look."""
        quiet = self._activity.quiet_for() >= _QUIET
        for uid in list(self._waiting):
            draft = self._held[uid]
            age = now - draft.since
            if age < HOLD:  # those behind it are younger
                return HOLD - age
            if not quiet and age < HOLD_AT_MOST:
                return _QUIET
            del self._waiting[uid]
            self._due.add(uid)
            self._wake(draft.base.key)
        return 0.0

    def _lose(self, task: Task) -> bool:
        """The step is to be decided anew; its request may be on its way. True when there was a draft."""
        had = self._drop(task.uid)
        if had:
            self.doubt(task.key)
        return had

    def _drop(self, uid: str) -> bool:
        self._waiting.pop(uid, None)
        self._due.discard(uid)
        return self._held.pop(uid, None) is not None
