"""The judge of the chaos rounds: what must not happen is noticed, and what may happen is not held against us."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.chaos.exposure import Exposure, find_exposure
from tests.chaos.history import find_illegal
from tests.chaos.journal import FROZEN, KILLED, STORAGE_DELETED, Disruption
from tests.chaos.orders import ASKED, HOOKED, Call, CallKey, Order, comment_of, draw_order, result_of
from tests.chaos.verdict import BACKLOG_SECONDS, PASSING_SECONDS, UNKNOWN, Verdict, judge
from tests.chaos.witness import Ask, LLMRequest, Witness

from kubechain_common.api.names import tool_call_name
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.task import TaskPhase, TaskStatus

ACT, PUT = ("t", 1, 0), ("t", 1, 1)
ORDER = Order("t", ((Call("act", 10), Call("put", 10)),), (100, 100))
GUARDED = Order("t", ((Call("act", 10, ASKED, "approve"), Call("act", 10, HOOKED, "reject")),), (100, 100))
APPROVED, REJECTED = ("t", 1, 0), ("t", 1, 1)
UID = "uid"


class Run:
    """A run in which all went well; tests change what the witnesses saw."""

    def __init__(self, order: Order = ORDER) -> None:
        self.order = order
        calls = order.calls()
        runs = [key for key, call in calls.items() if call.verdict != "reject"]
        self.results = {key: result_of(key) if key in runs else comment_of(key) for key in calls}
        self.started: dict[CallKey, list[float]] = {key: [1.0] for key in runs}
        self.ended: dict[CallKey, list[float]] = {key: [2.0] for key in runs}
        self.asks = {key: [Ask(f"ec-{key[2]}", call.server, 0.5)] for key, call in calls.items() if call.verdict}
        self.requests = {("t", 1): [self.ask(1, 10.0)], ("t", 2): [self.ask(2, 20.0)]}
        self.children = [tool_call_name("t", UID, 1, 1), tool_call_name("t", UID, 1, 2)]
        self.phase = "FinalAnswer"
        self.disruptions: list[Disruption] = []
        self.illegal: list[str] = []
        self.answered = {("t", 1): 11.0, ("t", 2): 21.0}

    def ask(self, turn: int, at: float, digest: str = "") -> LLMRequest:
        told = tuple(self.results.values()) if turn > 1 else ()
        return LLMRequest("t", turn, digest or f"d{turn}", at, 0.1, told)

    def tell(self, key: CallKey, text: str) -> None:
        self.results[key] = text
        self.requests["t", 2] = [self.ask(2, 20.0)]

    def judge(self, *, gentle: bool = False) -> Verdict:
        task: dict[str, Any] = {
            "metadata": {"uid": UID},
            "status": {
                "phase": self.phase,
                "output": self.order.answer,
                "contextWindow": [
                    {"role": "system"},
                    {"role": "user"},
                    {"role": "assistant"},
                    *({"role": "tool", "content": text} for text in self.results.values()),
                    {"role": "assistant"},
                ],
            },
        }
        children = [{"metadata": {"name": name}, "spec": {"taskRunRef": {"name": "t"}}} for name in self.children]
        witness = Witness(self.started, self.ended, self.requests, self.asks)
        return judge(
            [self.order],
            {"t": task},
            children,
            witness,
            self.disruptions,
            self.illegal,
            answered=self.answered,
            gentle=gentle,
        )


@pytest.fixture
def run() -> Run:
    return Run()


def test_a_run_in_which_all_went_well(run: Run) -> None:
    assert run.judge(gentle=True) == Verdict(tasks=1, turns=2, calls=2)


def test_a_run_with_people_in_which_all_went_well() -> None:
    assert Run(GUARDED).judge(gentle=True) == Verdict(tasks=1, turns=2, calls=2, approvals=2)


def test_a_person_who_is_asked_twice_is_noticed() -> None:
    run = Run(GUARDED)
    run.asks[APPROVED] *= 2
    assert run.judge().duplicated_asks == 1
    assert run.judge().anomalies


def test_a_webhook_may_come_again_under_its_id_only() -> None:
    run = Run(GUARDED)
    run.asks[REJECTED] *= 2
    assert (run.judge().repeated_asks, run.judge().anomalies) == (1, [])
    run.asks[REJECTED].append(Ask("another", HOOKED, 0.6))
    assert run.judge().duplicated_asks == 1
    assert run.judge().anomalies


def test_a_person_who_is_not_asked_is_noticed() -> None:
    run = Run(GUARDED)
    del run.asks[APPROVED]
    assert run.judge().anomalies


def test_a_rejected_call_must_not_run() -> None:
    run = Run(GUARDED)
    run.started[REJECTED] = [1.0]
    assert run.judge().anomalies


def test_the_model_reads_why_a_call_was_rejected() -> None:
    run = Run(GUARDED)
    run.tell(REJECTED, result_of(REJECTED))
    assert run.judge().lost_calls == 1


def test_a_task_that_never_ended_is_lost(run: Run) -> None:
    run.phase = "ToolCallsPending"
    verdict = run.judge()
    assert (verdict.lost_tasks, len(verdict.anomalies)) == (1, 1)


def test_a_tool_that_ran_twice_is_a_duplicated_effect(run: Run) -> None:
    run.started[ACT] = [1.0, 5.0]
    verdict = run.judge()
    assert verdict.duplicated_calls == 1
    assert verdict.anomalies


def test_a_repeatable_tool_may_run_twice_but_not_in_an_orderly_restart(run: Run) -> None:
    run.started[PUT] = [1.0, 5.0]
    verdict = run.judge()
    assert (verdict.repeated_calls, verdict.anomalies) == (1, [])
    assert run.judge(gentle=True).anomalies


@pytest.mark.parametrize("times", [0, 1])
def test_an_unknown_outcome_may_be_told(run: Run, times: int) -> None:
    run.started[ACT], run.ended[ACT] = [1.0] * times, []
    run.tell(ACT, f"Error: {UNKNOWN}: why")
    verdict = run.judge()
    assert (verdict.unknown_told, verdict.anomalies) == (1, [])


def test_an_unknown_outcome_of_a_repeatable_tool_is_a_lost_call(run: Run) -> None:
    run.tell(PUT, f"Error: {UNKNOWN}: why")
    assert run.judge().lost_calls == 1


def test_a_result_without_an_execution_is_noticed(run: Run) -> None:
    run.started[ACT], run.ended[ACT] = [], []
    assert run.judge().anomalies


def test_results_in_the_wrong_order_are_lost_calls(run: Run) -> None:
    run.results = {ACT: result_of(PUT), PUT: result_of(ACT)}
    assert run.judge().lost_calls == 2


def test_what_the_llm_was_told_has_to_be_what_the_task_says(run: Run) -> None:
    run.results[ACT] = f"Error: {UNKNOWN}: why"
    assert any("not told" in anomaly for anomaly in run.judge().anomalies)


@pytest.mark.parametrize(
    ("target", "kind", "at", "until", "explained"),
    [
        ("llm-gateway", KILLED, 10.05, 12.0, True),
        ("nats", KILLED, 9.0, 10.0, True),
        ("nats", KILLED, 9.0, None, True),
        ("llm-gateway", KILLED, 10.1 + PASSING_SECONDS + 0.1, None, False),
        ("nats", KILLED, 8.0, 9.9, True),
        ("nats", KILLED, 8.0, 9.9 - PASSING_SECONDS, False),
        ("llm-gateway", KILLED, 8.0, 9.9, False),
        ("task-controller", KILLED, 10.05, 12.0, False),
        ("llm-gateway", FROZEN, 2.0, 9.9, True),
        ("llm-gateway", FROZEN, 2.0, 10.1 - BACKLOG_SECONDS, True),
        ("llm-gateway", FROZEN, 2.0, 9.9 - BACKLOG_SECONDS, False),
        ("task-controller", FROZEN, 2.0, 9.9, False),
    ],
)
def test_a_request_may_be_repeated_only_if_it_was_in_flight(
    run: Run, target: str, kind: str, at: float, until: float | None, explained: bool
) -> None:
    run.requests["t", 1].append(run.ask(1, 15.0))
    run.disruptions.append(Disruption(target, kind, at, until))
    verdict = run.judge()
    assert (verdict.repeated_in_flight, verdict.repeated_unexplained) == ((1, 0) if explained else (0, 1))
    assert bool(verdict.anomalies) is not explained


@pytest.mark.parametrize(("answered", "explained"), [(30.0, True), (11.0, False)])
def test_a_stored_answer_is_lost_with_the_storage_only_until_the_task_has_it(
    run: Run, answered: float, explained: bool
) -> None:
    run.answered["t", 1] = answered
    run.requests["t", 1].append(run.ask(1, 25.0))
    run.disruptions.append(Disruption("nats", STORAGE_DELETED, 18.0, 18.0))
    verdict = run.judge()
    assert (verdict.repeated_storage_lost, verdict.repeated_unexplained) == ((1, 0) if explained else (0, 1))


def test_one_turn_has_one_context(run: Run) -> None:
    run.requests["t", 1].append(run.ask(1, 10.01, digest="another"))
    run.disruptions.append(Disruption("llm-gateway", "killed", 10.05, 12.0))
    assert any("different contexts" in anomaly for anomaly in run.judge().anomalies)


def test_a_second_object_for_a_call_is_noticed(run: Run) -> None:
    run.children.append("t-of-another-making")
    assert run.judge().anomalies


def test_what_the_history_says_is_not_forgotten(run: Run) -> None:
    run.illegal.append("t: went back")
    assert run.judge().anomalies == ["t: went back"]


P = TaskPhase
HELLO, AGAIN = Message(role="user", content="hello"), Message(role="user", content="again")


def status(phase: TaskPhase | None, turn: int, *window: Message) -> TaskStatus:
    return TaskStatus(phase=phase, turn=turn, context_window=list(window))


@pytest.mark.parametrize(
    ("old", "new", "legal"),
    [
        (status(None, 0), status(P.SEND_CONTEXT_WINDOW_TO_LLM, 1, HELLO), True),
        (status(P.SEND_CONTEXT_WINDOW_TO_LLM, 1), status(P.TOOL_CALLS_PENDING, 1), True),
        (status(P.SEND_CONTEXT_WINDOW_TO_LLM, 1, HELLO), status(P.FINAL_ANSWER, 3, HELLO, AGAIN), True),
        (status(P.TOOL_CALLS_PENDING, 1), status(P.FINAL_ANSWER, 1), False),
        (status(P.TOOL_CALLS_PENDING, 2), status(P.SEND_CONTEXT_WINDOW_TO_LLM, 1), False),
        (status(P.FINAL_ANSWER, 2, HELLO), status(P.FINAL_ANSWER, 2, HELLO, AGAIN), False),
        (status(P.SEND_CONTEXT_WINDOW_TO_LLM, 1, HELLO), status(P.TOOL_CALLS_PENDING, 1, AGAIN), False),
    ],
)
def test_illegal_steps_of_a_task_are_noticed(old: TaskStatus, new: TaskStatus, legal: bool) -> None:
    assert (not find_illegal(old, new)) is legal


def test_an_order_survives_the_user_message() -> None:
    import random

    order = draw_order("t", random.Random(1))
    assert Order.from_message(order.to_message()) == order


def test_a_kill_counts_as_one_with_something_in_flight_only_while_there_was_something() -> None:
    request = LLMRequest("t", 1, "digest", 10.0, 2.0)
    witness = Witness({ACT: [11.0, 20.0]}, {ACT: [13.0]}, {("t", 1): [request]})
    kills = [Disruption("nats", KILLED, at) for at in (9.0, 10.5, 11.5, 12.5, 14.0, 21.0)]
    outage = Disruption("nats", STORAGE_DELETED, 11.0)
    assert find_exposure([*kills, outage], witness) == Exposure(2, 2, 3)
