"""Running sums over all Tasks, and what is carried over of those that were deleted. Pure data, fed with changes.

A sum is that of the Tasks that exist plus ``carried``: what the deleted ones had used. Whoever writes a sum down writes
both, and a new leader goes on from there: it takes the written sum, or the written carried part plus the Tasks that it
finds, whichever is more. What was used between the last writing and the crash is in the Tasks, and what was deleted
meanwhile is in the written sum; only who was used *and* deleted in these seconds is missed, and nothing counts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from kubechain_common.api.v1alpha1.task import Task
from kubechain_task_controller.core.spent import Spent

K = TypeVar("K", bound=Hashable)
NONE = Spent()


class Tally(Generic[K]):
    """``parts`` tells of a Task under which keys it counts, and with how much."""

    def __init__(self, parts: Callable[[Task], Mapping[K, Spent]]) -> None:
        self._parts = parts
        self._live: dict[K, Spent] = {}
        self._carried: dict[K, Spent] = {}

    def note(self, old: Task | None, new: Task | None) -> None:
        """Takes a change of a Task."""
        if old is not None and new is not None and _used_the_same(old, new):
            return
        before = self._parts(old) if old is not None else {}
        after = self._parts(new) if new is not None else {}
        for key, spent in before.items():
            self._set_live(key, self.live(key) - spent)
            if new is None and key in self._carried:
                self._carried[key] += spent
        for key, spent in after.items():
            self._set_live(key, self.live(key) + spent)

    def live(self, key: K) -> Spent:
        """What the Tasks that exist have used."""
        return self._live.get(key, NONE)

    def carried(self, key: K) -> Spent:
        """What the deleted ones had used, since ``resume``."""
        return self._carried.get(key, NONE)

    def total(self, key: K) -> Spent:
        return self.live(key) + self.carried(key)

    def resume(self, key: K, total: Spent, carried: Spent) -> None:
        """Goes on from what was written down; only the first time in a term."""
        if key not in self._carried:
            live = self.live(key)
            self._carried[key] = total.or_more(carried + live) - live

    def is_resumed(self, key: K) -> bool:
        """Whether this sum is written down in the present term."""
        return key in self._carried

    def forget(self, key: K) -> None:
        """Nobody writes this sum down any more; the Tasks that exist go on counting."""
        self._carried.pop(key, None)

    def begin_term(self) -> None:
        """Somebody else may have written since."""
        self._carried.clear()

    def _set_live(self, key: K, spent: Spent) -> None:
        if spent:
            self._live[key] = spent
        else:
            self._live.pop(key, None)


def _used_the_same(old: Task, new: Task) -> bool:
    return (
        old.uid == new.uid and old.status.token_usage == new.status.token_usage and old.status.cost == new.status.cost
    )
