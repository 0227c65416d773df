"""When a connection's tools are listed again."""

from __future__ import annotations

import math

from kubechain_mcp_host.connections.relisting import Relisting


def _quiet_http() -> Relisting:
    return Relisting(0.0, spacing=1.0, refresh=30.0, refreshes=True)


def _stdio() -> Relisting:
    return Relisting(0.0, spacing=1.0, refresh=30.0, refreshes=False)


def test_a_quiet_http_server_is_listed_at_intervals() -> None:
    it = _quiet_http()
    assert it.seconds_left(10.0) == 20.0
    assert not it.take(10.0, busy=False)
    assert it.take(30.0, busy=False)
    it.note_answer(31.0)
    assert it.seconds_left(31.0) == 30.0


def test_a_quiet_stdio_server_is_not() -> None:
    it = _stdio()
    assert it.seconds_left(1000.0) == math.inf
    assert not it.take(1000.0, busy=False)


def test_a_server_whose_calls_run_is_listed_after_them() -> None:
    it = _quiet_http()
    assert not it.take(30.0, busy=True)
    assert it.seconds_left(30.0) == 30.0
    assert it.take(60.0, busy=False)


def test_a_change_is_looked_at_without_delay_and_the_next_one_after_a_pause() -> None:
    it = _stdio()
    it.want()
    assert it.seconds_left(5.0) == 0.0
    assert it.take(5.0, busy=True)
    it.want()  # while the list is under way
    it.note_answer(6.0)
    it.want()
    assert it.seconds_left(6.0) == 1.0
    assert not it.take(6.5, busy=False)
    assert it.take(7.0, busy=False)
    it.note_answer(7.0)
    assert it.seconds_left(7.0) == math.inf


def test_a_list_that_failed_is_made_up_for_whatever_runs() -> None:
    it = _stdio()
    it.want()
    assert it.take(1.0, busy=True)
    it.note_failure(2.0)
    assert it.seconds_left(2.0) == 30.0
    assert it.take(32.0, busy=True)
    it.note_answer(32.0)
    assert it.seconds_left(32.0) == math.inf


def test_a_change_does_not_wait_for_what_is_to_be_made_up_for() -> None:
    it = _quiet_http()
    it.note_failure(2.0)
    it.want()
    assert it.seconds_left(2.0) == 1.0
    assert it.take(3.0, busy=True)
