"""Running sums over all Tasks, and what is carried over of those that were deleted. Pure data, fed with changes.

A sum is that of the Tasks that exist plus ``carried``: what the deleted ones had used. Whoever writes a sum down writes
both, and a new leader goes on from there: it takes the written sum, or the written carried part plus the Tasks that it
finds, whichever is more. What was used between the last writing and the crash is in the Tasks, and what was deleted
meanwhile is in the written sum; only a Task that used something *and* was deleted in these seconds is missed, and
nothing counts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from kubechain_common.api.v1alpha1.task import Task
from kubechain_task_controller.core.spent import Spent

K = TypeVar("K", bound=Hashable)
NONE = Spent()


class Tally(Generic[K]):
    """Sums by key. ``parts`` gives the keys under which a Task counts, each with how much."""

    def __init__(self, parts: Callable[[Task], Mapping[K, Spent]]) -> None:
        self._parts = parts
        self._live: dict[K, Spent] = {}
        self._carried: dict[K, Spent] = {}

    def note(self, old: Task | None, new: Task | None) -> None:
        """Takes a change of a Task in."""
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
        """What the deleted Tasks had used, as far as it is known since ``resume``."""
        return self._carried.get(key, NONE)

    def total(self, key: K) -> Spent:
        return self.live(key) + self.carried(key)

    def resume(self, key: K, total: Spent, carried: Spent) -> None:
        """Goes on from what was written down, the first time that it is called for the key in a term."""
        if key not in self._carried:
            live = self.live(key)
            self._carried[key] = total.or_more(carried + live) - live

    def is_resumed(self, key: K) -> bool:
        """Whether ``resume`` was called for the key in the present term."""
        return key in self._carried

    def forget(self, key: K) -> None:
        """Forgets what was carried over for the key, because nobody writes its sum down any more; the Tasks that exist
        go on counting.
        """
        self._carried.pop(key, None)

    def begin_term(self) -> None:
        """Forgets what was carried over for all keys, because another leader may have written since."""
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
