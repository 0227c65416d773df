"""The circuit as a pure function of what happened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_llm_gateway.admission.circuit import (
    HEALTHY,
    LONGEST_PAUSE,
    LONGEST_PROBE,
    Block,
    Circuit,
    Health,
    Obstacle,
    Sign,
    answer_probe,
    circuit_of,
    claim_probe,
    decode,
    encode,
    find_block,
    pause,
    probe_interval,
    read_pause,
    read_sign,
    recover,
    trip,
)
from kubechain_llm_gateway.providers.errors import (
    BrokenReplyError,
    KeyRefusedError,
    ProviderError,
    RejectedRequestError,
    TransientProviderError,
    UnreachableProviderError,
    UnusableReplyError,
)

GENERATION = 1


def opened(now: float = 100.0) -> Health:
    return trip(HEALTHY, GENERATION, "Connection refused", now - 1, now)


def test_it_opens_is_probed_tried_and_closed() -> None:
    health = opened()
    block = find_block(health, GENERATION, 100.0)
    assert block is not None
    assert (block.obstacle, block.until) == (Obstacle.UNAVAILABLE, None)
    assert "Connection refused" in block.sentence
    assert claim_probe(health, 101.9) == health, "not due yet"
    claimed = claim_probe(health, 102.0)
    assert claimed != health
    assert claim_probe(claimed, 102.0) == claimed, "taken until the next one is due"
    on_trial = answer_probe(claimed, 102.5)
    assert on_trial.circuit is Circuit.TRIAL
    assert find_block(on_trial, GENERATION, 102.5) is None
    closed = recover(on_trial, 103.0)
    assert closed.circuit is Circuit.CLOSED
    assert recover(closed, 104.0) == closed


def test_a_trial_that_fails_opens_it_again_and_for_longer() -> None:
    health = answer_probe(claim_probe(opened(), 102.0), 102.5)
    again = trip(health, GENERATION, "still", 103.0, 104.0)
    assert (again.circuit, again.probe_at) == (Circuit.OPEN, 104.0 + probe_interval(1))
    assert again.probe_at - 104.0 > opened().probe_at - 100.0


def test_probes_come_ever_less_often() -> None:
    assert [probe_interval(n) for n in range(6)] == [2, 4, 8, 16, 32, 60]
    assert probe_interval(10_000) == LONGEST_PROBE


def test_what_began_before_it_became_what_it_is_says_nothing_new() -> None:
    on_trial = answer_probe(opened(), 102.5)
    assert trip(on_trial, GENERATION, "late", 102.0, 110.0) == on_trial
    closed = recover(on_trial, 103.0)
    assert trip(closed, GENERATION, "late", 102.0, 110.0) == closed


def test_an_answer_to_a_call_that_was_under_way_closes_it_too() -> None:
    assert recover(opened(), 101.0).circuit is Circuit.CLOSED


def test_an_edited_llm_starts_closed() -> None:
    health = opened()
    assert find_block(health, 2, 100.0) is None
    assert circuit_of(health, 2) is Circuit.CLOSED
    assert trip(health, 2, "no", 101.0, 102.0).generation == 2


def test_a_pause_holds_until_its_time_and_is_never_shortened() -> None:
    health = pause(HEALTHY, GENERATION, 20.0, "Rate limit reached.", 100.0)
    block = find_block(health, GENERATION, 119.9)
    assert block is not None
    assert (block.obstacle, block.until) == (Obstacle.PAUSED, 120.0)
    assert "00:02:00 UTC (Rate limit reached.)" in block.sentence
    assert find_block(health, GENERATION, 120.0) is None
    assert pause(health, GENERATION, 5.0, "again", 100.0) == health
    assert pause(health, GENERATION, 20.0, "again", 100.3) == health, "refused together with the first"
    assert pause(health, GENERATION, 20.0, "again", 101.0).paused_until == 121.0


def test_a_pause_outlives_a_late_answer() -> None:
    health = pause(opened(), GENERATION, 20.0, "busy", 100.0)
    closed = recover(health, 101.0)
    block = find_block(closed, GENERATION, 101.0)
    assert isinstance(block, Block)
    assert block.obstacle is Obstacle.PAUSED


@pytest.mark.parametrize(
    ("error", "sign"),
    [
        (None, Sign.ALIVE),
        (KeyRefusedError("no", status_code=401), Sign.ALIVE),
        (RejectedRequestError("no", status_code=400), Sign.ALIVE),
        (UnusableReplyError("no"), Sign.ALIVE),
        (TransientProviderError("busy", status_code=429), Sign.ALIVE),
        (TransientProviderError("busy", status_code=503, retry_after=2), Sign.UNCLEAR),
        (TransientProviderError("busy", status_code=503), Sign.DEAD),
        (TransientProviderError("busy", status_code=500), Sign.DEAD),
        (TransientProviderError("broke"), Sign.DEAD),
        (UnreachableProviderError("refused"), Sign.DEAD),
        (BrokenReplyError("no JSON"), Sign.UNCLEAR),
    ],
)
def test_what_a_call_says_about_the_provider(error: ProviderError | None, sign: Sign) -> None:
    assert read_sign(error) is sign


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (None, None),
        (TransientProviderError("busy", status_code=429, retry_after=7), 7),
        (TransientProviderError("busy", status_code=529, retry_after=7), 7),
        (TransientProviderError("busy", status_code=503, retry_after=7), 7),
        (TransientProviderError("busy", status_code=429, retry_after=1e6), LONGEST_PAUSE),
        (TransientProviderError("busy", status_code=429), None),
        (TransientProviderError("busy", status_code=429, retry_after=0), None),
        (TransientProviderError("busy", status_code=409, retry_after=7), None),
        (RejectedRequestError("quota", status_code=429, retry_after=7), None),
    ],
)
def test_who_asks_everybody_to_wait(error: ProviderError | None, seconds: float | None) -> None:
    assert read_pause(error) == seconds


STEPS: dict[str, Callable[[Health, float], Health]] = {
    "trip": lambda health, now: trip(health, GENERATION, "no", now, now),
    "claim": claim_probe,
    "answer": answer_probe,
    "recover": recover,
    "pause": lambda health, now: pause(health, GENERATION, 5.0, "busy", now),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.floats(0.1, 100)), max_size=40))
def test_whatever_happens_it_comes_back(steps: list[tuple[str, float]]) -> None:
    """From any state, a probe in time and a success close it; and every state survives its entry."""
    now, health = 1000.0, HEALTHY
    for step, seconds in steps:
        now += seconds
        health = STEPS[step](health, now)
        assert decode(encode(health)) == health
        if health.circuit is Circuit.OPEN:
            assert health.probe_at <= now + LONGEST_PROBE
    later = now + LONGEST_PROBE
    health = answer_probe(claim_probe(health, later), later)
    assert find_block(health, GENERATION, later) is None
    assert recover(health, later).circuit is Circuit.CLOSED


@pytest.mark.parametrize("data", [b"", b"no", b"[]", b'{"circuit": "ajar"}', b'{"since": "yesterday"}', b'"open"'])
def test_what_is_not_ours_is_healthy(data: bytes) -> None:
    assert decode(data) == HEALTHY


def test_what_a_newer_version_wrote_beside_it_is_left_out() -> None:
    assert decode(b'{"circuit": "open", "mood": "bad"}').circuit is Circuit.OPEN
