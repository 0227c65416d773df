"""How what waits looks in a terminal. Pure; what a model wrote is shown without anything that would steer it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from kubechain_cli.answering.waiting import Waiting
from kubechain_cli.taskrun.terminal import printable
from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.taskruntoolcall import ANSWERED, Decision

HEADINGS = ("NAMESPACE", "NAME", "KIND", "TOOL", "AGENT", "TASK", "AGE", "DEADLINE")
CONTENT = 2000
"""Characters of a question or of arguments that are shown; the rest is one kubectl away."""

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def render_inbox(waiting: Sequence[Waiting], now: datetime) -> str:
    """The table, and under each row what is asked."""
    if not waiting:
        return "Nothing waits for anybody."
    rows = [HEADINGS, *(cells_of(item, now) for item in waiting)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [_join(rows[0], widths)]
    for item, row in zip(waiting, rows[1:], strict=True):
        lines += [_join(row, widths), render_content(item)]
    return "\n".join(lines)


def cells_of(item: Waiting, now: datetime) -> tuple[str, ...]:
    """The row of one call; - for what is not known."""
    spec = item.call.spec
    deadline = f"in {render_span(item.deadline - now)}" if item.deadline else ""
    if item.deadline and item.on_timeout:
        deadline += f" ({item.on_timeout})"
    known = (
        item.call.namespace,
        item.call.name,
        item.kind,
        spec.tool_ref.name,
        item.agent,
        spec.task_run_ref.name,
        render_span(now - item.since) if item.since else "",
        deadline,
    )
    return tuple(printable(cell).replace("\n", " ") or "-" for cell in known)


def render_content(item: Waiting) -> str:
    """What is asked, indented under its row."""
    text = printable(shorten(item.content, CONTENT)).strip() or "(nothing)"
    return "\n".join(f"    {line}" for line in text.splitlines())


def render_hint(item: Waiting) -> str:
    """How to answer this one."""
    place = f"{item.call.name} -n {item.call.namespace}"
    if item.kind == "Question":
        return f'kubechain respond {place} "your answer"'
    return f'kubechain approve {place}   or   kubechain reject {place} --comment "why"'


def render_span(span: timedelta) -> str:
    """``4d``, ``3h``, ``2m`` or ``59s``, as kubectl shows an age; what is over is 0s."""
    seconds = max(0, int(span.total_seconds()))
    return next((f"{seconds // size}{unit}" for size, unit in _UNITS if seconds >= 2 * size), f"{seconds}s")


def describe_answer(call: TaskRunToolCall) -> str:
    """``Approved by alice at ...``, of a call that has been answered."""
    given = call.spec.decision or call.spec.response
    if given is None:
        return "Not answered"
    verb = "Answered"
    if isinstance(given, Decision):
        verb = "Approved" if given.approved else "Rejected"
    noted = (c.last_transition_time for c in call.status.conditions if c.type == ANSWERED)
    at = given.at or next(noted, None)
    return f"{verb} by {given.by or 'somebody'}{f' at {at:%Y-%m-%d %H:%M:%S} UTC' if at else ''}"


def _join(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
