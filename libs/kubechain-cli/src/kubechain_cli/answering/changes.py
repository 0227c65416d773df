"""What a sight of a call means for somebody who watches the inbox: it is new, or it is done, or neither."""

from __future__ import annotations

from dataclasses import dataclass, field

from kubechain_cli.answering.rendering import describe_answer
from kubechain_cli.answering.waiting import waits
from kubechain_cli.taskrun.watching import Deleted
from kubechain_common.api.v1alpha1 import TaskRunToolCall

Key = tuple[str, str]
"""(namespace, name)."""


@dataclass(frozen=True)
class Arrived:
    """This call waits from now on."""

    call: TaskRunToolCall


@dataclass(frozen=True)
class Done:
    """A call that waited waits no more; ``how`` is a sentence without its end."""

    key: Key
    how: str


@dataclass
class Inbox:
    """What a watcher has been told to wait: name -> uid."""

    _open: dict[Key, str] = field(default_factory=dict)

    def notice(self, sight: TaskRunToolCall | Deleted) -> Arrived | Done | None:
        """Takes note of one sight; returns what there is to tell about it."""
        key = (sight.namespace, sight.name)
        known = self._open.get(key)
        if isinstance(sight, TaskRunToolCall) and waits(sight):
            if known == sight.uid:
                return None
            self._open[key] = sight.uid
            return Arrived(sight)
        if known is None:
            return None
        del self._open[key]
        return Done(key, describe_end(sight))


def describe_end(sight: TaskRunToolCall | Deleted) -> str:
    """Why the call does not wait any more."""
    if isinstance(sight, Deleted) or sight.metadata.deletion_timestamp is not None:
        return "Deleted"
    if sight.spec.decision or sight.spec.response:
        return describe_answer(sight)
    if sight.spec.cancel:
        return "Cancelled"
    return sight.status.status_detail or str(sight.status.phase)
