from __future__ import annotations

import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.kube.lease_record import LeaseRecord, Observation, build_claim, build_release

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(holder: str = "other", version: str = "1", duration: float = 15.0) -> LeaseRecord:
    return LeaseRecord(holder=holder, duration=duration, transitions=3, resource_version=version)


def test_parse_reads_what_any_holder_may_have_written() -> None:
    lease = {
        "metadata": {"resourceVersion": "7"},
        "spec": {"holderIdentity": "x", "leaseDurationSeconds": 15, "leaseTransitions": 2, "renewTime": "whatever"},
    }
    assert LeaseRecord.parse(lease) == LeaseRecord("x", 15.0, 2, "7")
    assert LeaseRecord.parse({"metadata": {"resourceVersion": "7"}}) == LeaseRecord("", 15.0, 0, "7")


def test_a_free_released_or_own_lease_may_be_taken_at_once() -> None:
    for seen in (None, record(holder=""), record(holder="me")):
        assert Observation(seen, 100.0).expires_in("me", 100.0) == 0


def test_the_lease_of_another_runs_out_by_our_clock_since_it_last_changed() -> None:
    seen = Observation(None, 0.0).update(record(), 100.0)
    assert seen.expires_in("me", 105.0) == 10
    assert seen.update(record(), 110.0).expires_in("me", 110.0) == 5
    assert seen.update(record(version="2"), 110.0).expires_in("me", 110.0) == 15
    assert seen.expires_in("me", 115.0) == 0


@given(renewals=st.lists(st.floats(0.1, 14.9), max_size=20), late=st.floats(0, 14.9))
def test_a_lease_renewed_in_time_is_never_up_for_grabs(renewals: list[float], late: float) -> None:
    now, seen = 0.0, Observation(record(version="0"), 0.0)
    for number, gap in enumerate(renewals, start=1):
        now += gap
        seen = seen.update(record(version=str(number)), now)
    assert seen.expires_in("me", now + late) > 0


def test_claims_count_transitions_only_when_the_holder_changes() -> None:
    first = build_claim(None, "me", 15, NOW)
    assert first["leaseTransitions"] == 0
    assert first["acquireTime"] == first["renewTime"]
    assert build_claim(record(), "me", 15, NOW)["leaseTransitions"] == 4
    renewal = build_claim(record(holder="me"), "me", 15, NOW)
    assert "leaseTransitions" not in renewal
    assert "acquireTime" not in renewal


def test_times_have_exactly_six_digits() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", build_claim(None, "me", 15, NOW)["renewTime"])
    assert build_release(NOW)["holderIdentity"] == ""
