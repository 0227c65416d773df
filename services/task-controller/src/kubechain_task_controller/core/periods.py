"""Days and months in UTC, and what a Task used in them.

A Task's status holds one sum over all its turns. Where it goes on over midnight, or over the end of a month, its first
turn after that writes down what had been used before (``status.usageBefore``), so what it used in the day and the month
of its last turn can always be told from the Task alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.api.v1alpha1.task import Task, TaskStatus, UsageBefore
from kubechain_task_controller.core.spent import Spent, spent_by

Kind = Literal["day", "month"]
KINDS: tuple[Kind, ...] = ("day", "month")

PeriodKey = tuple[str, str]
"""(namespace, period)"""

_LENGTH = {"day": len("2026-11-28"), "month": len("2026-11")}


def period_of(moment: datetime, kind: Kind) -> str:
    """``2026-11-28`` or ``2026-11``; later ones sort behind earlier ones."""
    return moment.astimezone(UTC).date().isoformat()[: _LENGTH[kind]]


def end_of(moment: datetime, kind: Kind) -> datetime:
    """The end of the period in which the moment lies."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == "day":
        return day + timedelta(days=1)
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def note_turn(status: TaskStatus, now: datetime) -> dict[str, object]:
    """The part of a status that says what had been used before the day and the month of a turn that ends now."""
    changed = False
    before: list[UsageBefore] = []
    for kind in KINDS:
        entry = _entry(status, kind)
        last = entry.period if entry is not None else period_of(status.start_time or now, kind)
        current = period_of(now, kind)
        if current > last:
            entry = _write_down(status, current)
            changed = True
        if entry is not None:
            before.append(entry)
    return {"usage_before": before} if changed else {}


def count_for_periods(task: Task) -> Mapping[PeriodKey, Spent]:
    """What a Task used in the day and in the month of its last turn: all tokens together, and money."""
    status = task.status
    whole = spent_by(status)
    if not whole or status.start_time is None:
        return {}
    used = Spent(total=whole.total, costs=whole.costs)
    parts: dict[PeriodKey, Spent] = {}
    for kind in KINDS:
        entry = _entry(status, kind)
        period = entry.period if entry is not None else period_of(status.start_time, kind)
        parts[task.namespace, period] = used - _read(entry, status) if entry is not None else used
    return {key: part for key, part in parts.items() if part}


def _entry(status: TaskStatus, kind: Kind) -> UsageBefore | None:
    return next((entry for entry in status.usage_before or () if len(entry.period) == _LENGTH[kind]), None)


def _write_down(status: TaskStatus, period: str) -> UsageBefore:
    usage = status.token_usage
    return UsageBefore(period=period, total_tokens=usage.total_tokens if usage else 0, cost=status.cost)


def _read(entry: UsageBefore, status: TaskStatus) -> Spent:
    return Spent.of(TokenUsage(total_tokens=entry.total_tokens), entry.cost, status.currency, tasks=0)
