"""The messages whose handlers run in this process, by subject, and those that it acknowledged of late."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from kubechain_common.messaging.codec import claim_of


class Entry:
    """A message whose handler runs here. ``raw`` is its newest delivery, the one to settle, and None while no living
    consumer has delivered it.
    """

    __slots__ = ("claims", "data", "raw", "running", "subject", "task", "withdrawn")

    def __init__(self, raw: Any) -> None:
        claim = claim_of(raw.headers)
        self.raw: Any = raw
        self.subject: str = raw.subject
        self.data: bytes = raw.data
        self.claims: set[str] = {claim} if claim else set()
        self.task: asyncio.Task[None] | None = None
        self.running = False
        self.withdrawn = False

    def withdraw(self) -> None:
        """Ends the handler where it stands, or keeps it from starting: nobody wants the message any more."""
        already, self.withdrawn = self.withdrawn, True
        if self.task is not None and self.running and not already:
            self.task.cancel()

    def joins(self, raw: Any) -> bool:
        """Takes the delivery over if it is of this very message (same subject, same contents); whether it did."""
        claim = claim_of(raw.headers)
        if self.withdrawn or self.data != raw.data or (claim is not None and claim not in self.claims):
            return False
        self.raw = raw
        return True


class InFlight:
    """All entries. A subject normally has one; different messages may share it all the same."""

    def __init__(self) -> None:
        self._by_subject: dict[str, list[Entry]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        return iter([entry for entries in self._by_subject.values() for entry in entries])

    def add_or_join(self, raw: Any) -> Entry | None:
        """A new entry for the delivery, or None when it joined the entry of a message that is being handled already."""
        entries = self._by_subject.setdefault(raw.subject, [])
        if any(entry.joins(raw) for entry in entries):
            return None
        entry = Entry(raw)
        entries.append(entry)
        self._count += 1
        return entry

    def of_subject(self, subject: str) -> list[Entry]:
        return list(self._by_subject.get(subject, ()))

    def remove(self, entry: Entry) -> None:
        entries = self._by_subject[entry.subject]
        entries.remove(entry)
        self._count -= 1
        if not entries:
            del self._by_subject[entry.subject]

    def forget_deliveries(self) -> None:
        """Forgets all deliveries, none of which may be settled: the consumer or its stream is gone."""
        for entry in self:
            entry.raw = None

    def tasks(self) -> list[asyncio.Task[None]]:
        return [entry.task for entry in self if entry.task is not None]


class Acknowledged:
    """The last messages that were acknowledged here.

    A server that crashes forgets what it delivered a moment ago, and an acknowledgement may be lost with its
    connection: the message comes again, perhaps even as a first delivery, and has only to be acknowledged once more.
    Its place in the stream and the time when it was stored tell it from a later publish of the same unit.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._identities: OrderedDict[tuple[int, object], None] = OrderedDict()

    def add(self, raw: Any) -> None:
        self._identities[_identity(raw)] = None
        if len(self._identities) > self._capacity:
            self._identities.popitem(last=False)

    def __contains__(self, raw: Any) -> bool:
        return _identity(raw) in self._identities


def _identity(raw: Any) -> tuple[int, object]:
    metadata = raw.metadata
    return (metadata.sequence.stream, metadata.timestamp)
