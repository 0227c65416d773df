"""What is told of trouble with the bus, and when."""

from __future__ import annotations

import time

import pytest

from kubechain_common.messaging import BusFullError, BusUnavailableError, PublishRefusedError
from kubechain_common.runtime import bus_trouble
from kubechain_common.runtime.bus_trouble import BusTrouble


def test_a_full_bus_is_told_at_once_and_always_in_the_same_words() -> None:
    trouble = BusTrouble()
    first = trouble.note("uid", BusFullError("NATS has no room for it."))
    assert first is not None
    assert (first.reason, first.detail) == (
        "MessageBusFull",
        "Message bus: NATS has no room for it. This goes on when there is room",
    )
    assert trouble.note("uid", BusFullError("NATS has no room for it.")) == first


def test_a_refusal_is_told_at_once() -> None:
    told = BusTrouble().note("uid", PublishRefusedError("NATS refused it"))
    assert told is not None
    assert (told.reason, told.detail) == ("MessageBusRefused", "Message bus: NATS refused it")


def test_an_outage_is_told_when_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    trouble = BusTrouble()
    assert trouble.note("uid", BusUnavailableError("no answer")) is None
    clock[0] += bus_trouble.PATIENCE
    told = trouble.note("uid", BusUnavailableError("another reason"))
    assert told is not None
    assert told.reason == "MessageBusUnavailable"
    trouble.clear("uid")
    assert trouble.note("uid", BusUnavailableError("no answer")) is None
