"""The dispatcher publishes a unit once, and after a restart only when neither its request nor its result is there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from kubechain_common.messages import Envelope
from kubechain_common.messages.topology import LLM_REQUESTS, LLM_RESULTS
from kubechain_common.messaging.bus import Bus, PublishOutcome
from kubechain_common.messaging.dispatcher import Dispatcher

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakeBus:
    """A bus that remembers what was asked of it."""

    def __init__(self, present: set[str]) -> None:
        self.present = present
        self.asked: list[str] = []
        self.withdrawn: list[str] = []
        self.published: list[tuple[str, str | None]] = []
        self.known_ids: set[str] = set()

    async def has_message(self, stream: str, subject: str) -> bool:
        self.asked.append(f"{stream}:{subject}")
        return subject in self.present

    async def find_subjects(self, stream: str, pattern: str) -> list[str]:
        self.asked.append(f"{stream}:{pattern}")
        return sorted(self.present - {"res"})

    async def withdraw(self, stream: str, subject: str) -> None:
        self.withdrawn.append(subject)

    async def publish(
        self, subject: str, message: Envelope, *, msg_id: str | None, trace: Any, new_since: datetime | None
    ) -> PublishOutcome:
        assert (new_since is None) is (msg_id is None)
        if msg_id in self.known_ids:
            return PublishOutcome.ALREADY_THERE
        self.published.append((subject, msg_id))
        return PublishOutcome.STORED


def dispatcher(bus: FakeBus, *, leads: bool = True) -> Dispatcher:
    return Dispatcher(cast("Bus", bus), LLM_REQUESTS, LLM_RESULTS, lambda: leads)


async def publish(subject_of: Dispatcher, *, fresh: bool, subject: str = "req") -> None:
    await subject_of.publish(
        "u.1",
        Envelope(),
        subject=subject,
        result_subject="res",
        trace=None,
        new_since=NOW if fresh else None,
        anywhere="*",
    )


async def test_a_fresh_unit_is_published_without_a_question() -> None:
    bus = FakeBus(set())
    await publish(dispatcher(bus), fresh=True)
    assert bus.published == [("req", "req")]
    assert bus.asked == []


@pytest.mark.parametrize(("present", "published"), [(set(), [("req", None)]), ({"req"}, []), ({"res"}, [])])
async def test_a_fresh_unit_whose_id_the_server_knows_is_looked_for(
    present: set[str], published: list[tuple[str, str | None]]
) -> None:
    """etcd went back in time, and the server remembers what the unit's object does not."""
    bus = FakeBus(present)
    bus.known_ids = {"req"}
    unit = dispatcher(bus)
    await publish(unit, fresh=True)
    assert bus.published == published
    assert unit.subject_of("u.1") == "req"


async def test_what_is_on_its_way_is_not_published_again() -> None:
    bus = FakeBus(set())
    unit = dispatcher(bus)
    await publish(unit, fresh=True)
    await publish(unit, fresh=False)
    assert len(bus.published) == 1
    assert unit.subject_of("u.1") == "req"


@pytest.mark.parametrize("present", ["req", "res"])
async def test_after_a_restart_a_request_or_a_result_in_the_stream_is_enough(present: str) -> None:
    bus = FakeBus({present})
    unit = dispatcher(bus)
    await publish(unit, fresh=False)
    assert bus.published == []
    assert unit.subject_of("u.1") == "req"


async def test_a_lost_unit_is_published_again_without_an_id_that_would_swallow_it() -> None:
    bus = FakeBus(set())
    await publish(dispatcher(bus), fresh=False)
    assert bus.published == [("req", None)]
    assert bus.asked == ["KUBECHAIN_LLM_REQUESTS:*", "KUBECHAIN_LLM_RESULTS:res"]  # in this order


async def test_a_unit_whose_worker_was_replaced_goes_to_the_new_one() -> None:
    bus = FakeBus(set())
    unit = dispatcher(bus)
    await publish(unit, fresh=True)
    await publish(unit, fresh=False, subject="other")
    assert bus.published == [("req", "req"), ("other", None)]


async def test_after_the_storage_was_lost_the_dispatcher_looks_again() -> None:
    bus = FakeBus(set())
    unit = dispatcher(bus)
    await publish(unit, fresh=True)
    unit.forget_all()
    await publish(unit, fresh=False)
    assert len(bus.published) == 2


async def test_a_unit_that_moves_is_not_taken_for_a_duplicate_of_itself() -> None:
    bus = FakeBus(set())
    unit = dispatcher(bus)
    await publish(unit, fresh=True)
    await publish(unit, fresh=True, subject="other")
    assert bus.published == [("req", "req"), ("other", None)]
    assert bus.asked  # its result might have been there


async def test_a_request_that_an_earlier_leader_sent_elsewhere_is_taken_back() -> None:
    bus = FakeBus({"other"})
    await publish(dispatcher(bus), fresh=False)
    assert bus.withdrawn == ["other"]
    assert bus.published == [("req", None)]


async def test_whoever_may_have_been_overtaken_looks_and_does_not_call_its_request_new() -> None:
    bus = FakeBus(set())
    await publish(dispatcher(bus, leads=False), fresh=True)
    assert bus.asked
    assert bus.published == [("req", None)]
