"""What must be true after a round, whatever was done in it (pure).

* Every Task ends with its final answer, after exactly the ordered turns, with each result in its place.
* A tool without a hint ran once, or at most once and the model was told that the outcome is unknown. A repeatable tool
  ran at least once and its result is known.
* A person was asked once about each call that waits for one, and no rejected call ran: the model read the comment. By
  webhook, which can not be asked what it has got, a request in flight may come again under the same id.
* An LLM request is repeated only if the earlier one was in flight when something happened to what carries its answer:
  the LLM had not answered yet, or had for less than ``PASSING_SECONDS``. In that time llm-gateway parses the answer and
  JetStream confirms its result: milliseconds on an idle machine, longer while dozens of processes start on two cores.
  A frozen gateway that goes on does what JetStream gave it before, and by then has given to another one; that may be
  dozens of requests, which take it up to ``BACKLOG_SECONDS``. So it is after a death of nats-server, which forgets what
  it gave just before: until a gateway is connected again, it works on what it has, and the other one is given the same.
* No turn has two contexts, no call two objects, and no step of a Task's status was illegal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.journal import FROZEN, STORAGE_DELETED, Disruption
from tests.chaos.orders import HOOKED, REPEATABLE, Call, CallKey, Order, comment_of, result_of
from tests.chaos.witness import LLMRequest, Witness

from kubechain_common.api.names import tool_call_name

PASSING_SECONDS = 1.0
BACKLOG_SECONDS = 3.0
"""150 requests took two gateways 1.1 s on two slow cores, and one may have been given 256."""
UNKNOWN = "The outcome of the call is unknown"
CARRIERS = ("llm-gateway", "nats")
"""Whose failure may lose an answer of the LLM."""

Object = Mapping[str, Any]


@dataclass
class Verdict:
    """The counts of a round. ``anomalies`` are sentences: none may be left."""

    tasks: int = 0
    turns: int = 0
    calls: int = 0
    lost_tasks: int = 0
    lost_turns: int = 0
    lost_calls: int = 0
    duplicated_calls: int = 0
    repeated_calls: int = 0
    unknown_told: int = 0
    approvals: int = 0
    duplicated_asks: int = 0
    repeated_asks: int = 0
    repeated_in_flight: int = 0
    repeated_storage_lost: int = 0
    repeated_unexplained: int = 0
    anomalies: list[str] = field(default_factory=list)


def judge(
    orders: Iterable[Order],
    tasks: Mapping[str, Object],
    children: Sequence[Object],
    witness: Witness,
    disruptions: Sequence[Disruption],
    illegal: Sequence[str],
    *,
    answered: Mapping[tuple[str, int], float],
    gentle: bool = False,
) -> Verdict:
    verdict = Verdict(anomalies=list(illegal))
    calls_of: dict[str, list[Object]] = {}
    for child in children:
        calls_of.setdefault(child["spec"]["taskRunRef"]["name"], []).append(child)
    for order in orders:
        verdict.tasks += 1
        verdict.turns += len(order.turns) + 1
        verdict.calls += len(order.calls())
        told = _judge_task(verdict, order, tasks.get(order.task))
        _judge_children(verdict, order, tasks.get(order.task), calls_of.get(order.task, []))
        for (key, call), text in zip(order.calls().items(), told, strict=True):
            _judge_call(verdict, key, call, text, witness)
        for turn in range(1, len(order.turns) + 2):
            requests = witness.requests.get((order.task, turn), [])
            _judge_turn(verdict, order, turn, told, requests, disruptions, answered.get((order.task, turn)))
    if gentle and (
        verdict.unknown_told or verdict.repeated_in_flight or verdict.repeated_storage_lost or verdict.repeated_calls
    ):
        verdict.anomalies.append("an orderly restart had a cost: something was repeated, or its outcome is unknown")
    return verdict


def _judge_task(verdict: Verdict, order: Order, task: Object | None) -> list[str | None]:
    """What the window says about each call; None where it says nothing."""
    status = task.get("status", {}) if task else {}
    window = status.get("contextWindow", [])
    results = [message.get("content", "") for message in window if message["role"] == "tool"]
    wanted = len(order.calls())
    if status.get("phase") != "FinalAnswer" or status.get("output") != order.answer:
        verdict.lost_tasks += 1
        where = (
            f"{status.get('phase')} in turn {status.get('turn')}: {status.get('error') or status.get('statusDetail')}"
        )
        verdict.anomalies.append(f"{order.task}: not answered, {where}")
    else:
        roles = [role for calls in order.turns for role in ("assistant", *(["tool"] * len(calls)))]
        if [message["role"] for message in window] != ["system", "user", *roles, "assistant"]:
            verdict.lost_turns += 1
            verdict.anomalies.append(f"{order.task}: the context window is not that of its order")
    return [*results[:wanted], *[None] * (wanted - len(results))]


def _judge_children(verdict: Verdict, order: Order, task: Object | None, children: Sequence[Object]) -> None:
    if task is None:
        return
    uid = task["metadata"]["uid"]
    wanted = sorted(tool_call_name(order.task, uid, turn, index + 1) for _, turn, index in order.calls())
    found = sorted(child["metadata"]["name"] for child in children)
    if not set(found) <= set(wanted):
        verdict.anomalies.append(f"{order.task}: a TaskRunToolCall too many: {set(found) - set(wanted)}")
    if found != wanted and task.get("status", {}).get("phase") == "FinalAnswer":
        verdict.anomalies.append(f"{order.task}: {len(wanted)} calls ordered, {len(found)} TaskRunToolCalls")


def _judge_call(verdict: Verdict, key: CallKey, call: Call, text: str | None, witness: Witness) -> None:
    started, ended = len(witness.started.get(key, [])), len(witness.ended.get(key, []))
    if call.verdict:
        _judge_asks(verdict, key, call, witness)
    if call.verdict == "reject" and started:
        verdict.anomalies.append(f"{key}: rejected by a person, and ran all the same")
    repeatable = call.tool in REPEATABLE
    if started > 1 and repeatable:
        verdict.repeated_calls += started - 1
    elif started > 1:
        verdict.duplicated_calls += started - 1
        verdict.anomalies.append(f"{key}: {call.tool} ran {started} times")
    if text is None:
        return  # its Task is lost and says so
    if call.verdict == "reject":
        if text != comment_of(key):
            verdict.lost_calls += 1
            verdict.anomalies.append(f"{key}: rejected by a person, and the model was told: {text!r}")
    elif text == result_of(key):
        if ended == 0:
            verdict.anomalies.append(f"{key}: has a result, but never ran to its end")
    elif UNKNOWN in text and not repeatable:
        verdict.unknown_told += 1
    else:
        verdict.lost_calls += 1
        verdict.anomalies.append(f"{key}: {call.tool} ran {started} times, and the model was told: {text!r}")


def _judge_asks(verdict: Verdict, key: CallKey, call: Call, witness: Witness) -> None:
    verdict.approvals += 1
    asks = witness.asks.get(key, [])
    ids = {ask.id for ask in asks}
    if call.server == HOOKED:
        verdict.repeated_asks += max(0, len(asks) - len(ids))
        twice = len(ids) - 1
    else:
        twice = len(asks) - 1
    if not asks:
        verdict.anomalies.append(f"{key}: waited for a person, and nobody was asked")
    if twice > 0:
        verdict.duplicated_asks += twice
        verdict.anomalies.append(f"{key}: a person was asked {twice + 1} times, as {sorted(ids)}")


def _judge_turn(
    verdict: Verdict,
    order: Order,
    turn: int,
    told: Sequence[str | None],
    requests: Sequence[LLMRequest],
    disruptions: Sequence[Disruption],
    answered: float | None,
) -> None:
    where = f"{order.task} turn {turn}"
    if len({request.digest for request in requests}) > 1:
        verdict.anomalies.append(f"{where}: the LLM was asked with {len(requests)} different contexts")
    before = sum(len(calls) for calls in order.turns[: turn - 1])
    if any(list(request.told) != list(told[:before]) for request in requests):
        verdict.anomalies.append(f"{where}: the LLM was not told what the Task says of its calls")
    for earlier, later in pairwise(requests):
        if any(could_lose(disruption, earlier) for disruption in disruptions):
            verdict.repeated_in_flight += 1
        elif any(lost_with_the_storage(disruption, earlier, later, answered) for disruption in disruptions):
            verdict.repeated_storage_lost += 1
        else:
            verdict.repeated_unexplained += 1
            verdict.anomalies.append(
                f"{where}: asked again at {later.time:.3f}, {later.time - earlier.time:.1f} s after a request that "
                f"nothing happened to (it took {earlier.seconds} s; the Task had its answer at {answered})"
            )


def could_lose(disruption: Disruption, request: LLMRequest) -> bool:
    """Whether the request was in flight while what carries its answer was disturbed."""
    if disruption.target not in CARRIERS:
        return False
    end = request.time + request.seconds + PASSING_SECONDS
    return disruption.at <= end and (disruption.until is None or disruption.until + _felt(disruption) >= request.time)


def _felt(disruption: Disruption) -> float:
    """Seconds for which it is felt when it is over."""
    if disruption.kind == FROZEN:
        return BACKLOG_SECONDS
    return PASSING_SECONDS if disruption.target == "nats" else 0.0


def lost_with_the_storage(
    disruption: Disruption, earlier: LLMRequest, later: LLMRequest, answered: float | None
) -> bool:
    """Whether JetStream's storage was deleted between the two requests, before the Task had any answer.

    Counted apart: the answer may have been stored by then, and waited for a task-controller that was dead.
    """
    before_the_task_had_it = answered is None or answered > later.time
    deleted_between = disruption.kind == STORAGE_DELETED and earlier.time <= disruption.at <= later.time
    return deleted_between and before_the_task_had_it
