"""Which deliveries belong to a message that is being handled already."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kubechain_common.messaging.in_flight import Acknowledged, InFlight


def build_raw(subject: str = "s", data: bytes = b"a", claim: str | None = None) -> Any:
    return SimpleNamespace(subject=subject, data=data, headers={"Kubechain-Claim": claim} if claim else None)


def test_the_same_message_again_joins_and_brings_the_newest_delivery() -> None:
    in_flight = InFlight()
    entry = in_flight.add_or_join(build_raw())
    assert entry is not None
    again = build_raw()
    assert in_flight.add_or_join(again) is None
    assert entry.raw is again
    assert len(in_flight) == 1


def test_another_message_on_the_subject_is_another_entry() -> None:
    in_flight = InFlight()
    first, second = in_flight.add_or_join(build_raw(data=b"a")), in_flight.add_or_join(build_raw(data=b"b"))
    assert first is not None
    assert second is not None
    in_flight.remove(first)
    assert list(in_flight) == [second]


def test_claims_are_compared_by_name_because_their_data_is_empty() -> None:
    in_flight = InFlight()
    assert in_flight.add_or_join(build_raw(data=b"", claim="one")) is not None
    assert in_flight.add_or_join(build_raw(data=b"", claim="one")) is None
    assert in_flight.add_or_join(build_raw(data=b"", claim="two")) is not None


def test_forgotten_deliveries_leave_their_entries_to_be_joined() -> None:
    in_flight = InFlight()
    entry = in_flight.add_or_join(build_raw())
    in_flight.forget_deliveries()
    assert entry is not None
    assert entry.raw is None
    again = build_raw()
    assert in_flight.add_or_join(again) is None
    assert entry.raw is again


def test_a_removed_entry_is_gone() -> None:
    in_flight = InFlight()
    entry = in_flight.add_or_join(build_raw())
    assert entry is not None
    in_flight.remove(entry)
    assert len(in_flight) == 0
    assert in_flight.add_or_join(build_raw()) is not None


def build_delivery(sequence: int, stored_at: int = 0) -> Any:
    return SimpleNamespace(metadata=SimpleNamespace(sequence=SimpleNamespace(stream=sequence), timestamp=stored_at))


def test_an_acknowledged_message_is_known_when_it_comes_again() -> None:
    acknowledged = Acknowledged(8)
    acknowledged.add(build_delivery(1, stored_at=5))
    assert build_delivery(1, stored_at=5) in acknowledged
    assert build_delivery(1, stored_at=6) not in acknowledged, "the same place in a stream made anew"
    assert build_delivery(2, stored_at=5) not in acknowledged


def test_only_the_last_are_remembered() -> None:
    acknowledged = Acknowledged(2)
    for sequence in (1, 2, 3):
        acknowledged.add(build_delivery(sequence))
    assert [sequence for sequence in (1, 2, 3) if build_delivery(sequence) in acknowledged] == [2, 3]
