"""Who lives: by what was heard, on a clock of our own."""

from __future__ import annotations

from typing import Any, cast

from kubechain_common.messages.peers import Alive, SessionOwner
from kubechain_common.runtime.pulse import Pulse
from kubechain_mcp_host.sessions.roster import GONE_SECONDS, Roster

ME = SessionOwner(pod="mcp-host-0", instance="me")
OTHER = SessionOwner(pod="mcp-host-1", instance="other")


class Place:
    def __init__(self) -> None:
        self.now = 100.0
        self.changes = Pulse()
        self.roster = Roster(cast("Any", None), ME, self.changes, lambda: self.now)

    def hear(self, owner: SessionOwner) -> None:
        self.roster.hear(Alive(pod=owner.pod, instance=owner.instance))


def test_one_that_is_silent_for_long_is_gone() -> None:
    place = Place()
    place.hear(OTHER)
    place.now += GONE_SECONDS - 0.1
    assert not place.roster.is_gone(OTHER)
    place.now += 0.1
    assert place.roster.is_gone(OTHER)
    place.hear(OTHER)
    assert not place.roster.is_gone(OTHER)


def test_one_that_was_never_heard_of_gets_as_long() -> None:
    place = Place()
    assert not place.roster.is_gone(OTHER)
    place.now += GONE_SECONDS
    assert place.roster.is_gone(OTHER)


def test_a_pod_that_lives_again_replaces_its_former_run_at_once() -> None:
    place = Place()
    place.hear(OTHER)
    again = SessionOwner(pod=OTHER.pod, instance="again")
    place.hear(again)
    assert place.roster.is_gone(OTHER)
    assert not place.roster.is_gone(again)


def test_our_own_former_run_is_gone_and_we_are_not() -> None:
    place = Place()
    assert place.roster.is_gone(SessionOwner(pod=ME.pod, instance="before"))
    assert not place.roster.is_gone(ME)


def test_who_was_cut_off_blames_nobody() -> None:
    place = Place()
    place.hear(OTHER)
    place.now += GONE_SECONDS * 3
    place.roster.forgive()
    assert not place.roster.is_gone(OTHER)
    place.now += GONE_SECONDS
    assert place.roster.is_gone(OTHER)


def test_that_one_comes_back_is_told() -> None:
    place = Place()
    before = place.changes.next
    place.hear(OTHER)
    assert before.is_set()
    before = place.changes.next
    place.hear(OTHER)
    assert not before.is_set()
