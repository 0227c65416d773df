"""A consumer looks after its messages three times within ``ack_wait`` while it has any, and seldom otherwise."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from kubechain_common.messaging.beat import Beat
from kubechain_common.messaging.in_flight import InFlight
from kubechain_common.messaging.pull import IDLE_HEARTBEAT


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_the_first_message_for_a_while_brings_the_next_look_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, in_flight, woken = Clock(monkeypatch), InFlight(), []
    beat = Beat(3.0, in_flight, lambda: woken.append(clock.now))
    beat.plan()
    assert beat.due_in == IDLE_HEARTBEAT
    clock.now += 4
    in_flight.add_or_join(SimpleNamespace(subject="a", data=b"", headers=None))
    beat.hasten()
    assert (beat.due_in, woken) == (1.0, [1004.0])
    clock.now += 0.5
    beat.hasten()  # of another one, which the planned look is soon enough for
    assert (beat.due_in, woken) == (0.5, [1004.0])
    clock.now += 0.5
    beat.plan()
    assert beat.due_in == 1.0


def test_a_look_that_comes_soon_anyhow_is_left_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, woken = Clock(monkeypatch), []
    beat = Beat(3.0, InFlight(), lambda: woken.append(clock.now))
    beat.plan()
    clock.now += IDLE_HEARTBEAT - 0.5
    beat.hasten()
    assert (beat.due_in, woken) == (0.5, [])
