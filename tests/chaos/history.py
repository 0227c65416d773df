"""Follows every Task by a watch of its own: the states it went through, and whether each step was legal."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.task import TaskPhase, TaskStatus
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Change, Informer

P = TaskPhase
_LEGAL: dict[TaskPhase | None, set[TaskPhase | None]] = {
    None: {None, P.PENDING, P.SEND_CONTEXT_WINDOW_TO_LLM},
    P.PENDING: {P.PENDING, P.SEND_CONTEXT_WINDOW_TO_LLM},
    P.SEND_CONTEXT_WINDOW_TO_LLM: {P.SEND_CONTEXT_WINDOW_TO_LLM, P.TOOL_CALLS_PENDING, P.FINAL_ANSWER},
    P.TOOL_CALLS_PENDING: {P.TOOL_CALLS_PENDING, P.SEND_CONTEXT_WINDOW_TO_LLM},
}


@dataclass
class _Seen:
    status: TaskStatus
    at: float


@dataclass
class History:
    """``illegal`` holds a sentence for each step that must not happen; ``longest_pause`` is that of any Task."""

    illegal: list[str] = field(default_factory=list)
    longest_pause: float = 0.0
    last_step: float = 0.0
    """When any Task was last seen to move."""
    answered: dict[tuple[str, int], float] = field(default_factory=dict)
    """When the LLM's answer to a (task, turn) was first seen in the Task."""
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    def expect(self, name: str) -> None:
        self._open.add(name)

    @property
    def unfinished(self) -> set[str]:
        return self._open

    def follow(self, kube: KubeClient, namespace: str) -> Informer[Task]:
        informer: Informer[Task] = Informer(kube, Task, namespace=namespace)
        informer.add_handler(self.observe)
        return informer

    def observe(self, change: Change[Task]) -> None:
        task = change.new
        if task is None:
            return
        now, last = time.time(), self._seen.get(task.name)
        if last is None:
            self.illegal += [f"{task.name}: began in phase {p}" for p in [task.status.phase] if p in (P.FAILED,)]
        else:
            self.illegal += [f"{task.name}: {what}" for what in find_illegal(last.status, task.status)]
            if last.status != task.status:
                self.longest_pause = max(self.longest_pause, now - last.at)
        if last is None or last.status != task.status:
            self._seen[task.name] = _Seen(task.status, now)
            self.last_step = now
        status = task.status
        done = status.turn - (status.phase == P.SEND_CONTEXT_WINDOW_TO_LLM)
        for turn in range(1, done + 1):
            self.answered.setdefault((task.name, turn), now)
        if task.finished:
            self._open.discard(task.name)


def find_illegal(old: TaskStatus, new: TaskStatus) -> list[str]:
    """What is wrong with this step. A watch may leave steps out, so a turn or two may pass in one."""
    if old == new:
        return []
    found: list[Any] = []
    if old.phase in (P.FINAL_ANSWER, P.FAILED):
        return [f"changed after {old.phase}"]
    if new.turn < old.turn:
        found.append(f"went back from turn {old.turn} to {new.turn}")
    if new.turn == old.turn and new.phase not in _LEGAL[old.phase]:
        found.append(f"went from {old.phase} to {new.phase} in turn {new.turn}")
    if new.context_window[: len(old.context_window)] != old.context_window:
        found.append(f"a message of the context window changed in turn {new.turn}")
    return found
