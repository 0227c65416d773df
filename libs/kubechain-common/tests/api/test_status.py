"""Conditions move only when they change, and ``mark`` keeps the seed's fields and the condition in step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from kubechain_common.api.v1alpha1.status import MAX_DETAIL, Condition, ReadinessStatus, set_condition, shorten

T0 = datetime(2025, 4, 5, 1, 4, 15, tzinfo=UTC)
T1 = T0 + timedelta(minutes=5)


def condition(
    type_: str, status: Literal["True", "False", "Unknown"], at: datetime, reason: str = "Because"
) -> Condition:
    return Condition(type=type_, status=status, reason=reason, last_transition_time=at)


def test_a_condition_with_the_same_status_keeps_its_transition_time() -> None:
    (kept,) = set_condition([condition("Ready", "True", T0)], condition("Ready", "True", T1, reason="Other"))
    assert kept.last_transition_time == T0
    assert kept.reason == "Other"


def test_a_condition_with_another_status_moves_its_transition_time() -> None:
    (moved,) = set_condition([condition("Ready", "True", T0)], condition("Ready", "False", T1))
    assert moved.last_transition_time == T1


def test_other_conditions_stay() -> None:
    conditions = set_condition([condition("Complete", "True", T0)], condition("Ready", "True", T1))
    assert [c.type for c in conditions] == ["Complete", "Ready"]


def test_mark_ready() -> None:
    status = ReadinessStatus().mark("Ready", "ValidationSucceeded", "all is well", generation=3, now=T0)
    assert status.to_wire() == {
        "ready": True,
        "status": "Ready",
        "statusDetail": "all is well",
        "observedGeneration": 3,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "ValidationSucceeded",
                "message": "all is well",
                "lastTransitionTime": "2025-04-05T01:04:15Z",
                "observedGeneration": 3,
            }
        ],
    }


@pytest.mark.parametrize("word", ["Error", "Pending"])
def test_mark_not_ready_after_ready(word: Literal["Error", "Pending"]) -> None:
    ready = ReadinessStatus().mark("Ready", "ValidationSucceeded", "all is well", generation=1, now=T0)
    status = ready.mark(word, "Lost", "gone", generation=2, now=T1)
    assert not status.ready
    assert status.status == word
    assert status.conditions[0].status == "False"
    assert status.conditions[0].last_transition_time == T1
    assert ready.ready, "mark gives a copy"


def test_marking_the_same_again_changes_nothing() -> None:
    once = ReadinessStatus().mark("Ready", "ValidationSucceeded", "all is well", generation=1, now=T0)
    assert once.mark("Ready", "ValidationSucceeded", "all is well", generation=1, now=T1) == once


def test_a_long_detail_is_cut_everywhere() -> None:
    status = ReadinessStatus().mark("Error", "Failed", "x" * (MAX_DETAIL + 1), generation=1, now=T0)
    assert len(status.status_detail) == MAX_DETAIL
    assert status.status_detail.endswith("...")
    assert status.conditions[0].message == status.status_detail


def test_a_text_at_the_limit_is_not_cut() -> None:
    assert shorten("x" * MAX_DETAIL) == "x" * MAX_DETAIL
