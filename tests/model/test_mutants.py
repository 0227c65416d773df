"""The model can fail: each of these defects, put into the product or the world for the time of a test, is caught.

Each names the misfortunes under which it shows; a model that does not see it proves nothing about the real thing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.model.api_server import ApiServer
from tests.model.effects import Fate
from tests.model.invariants import Violation
from tests.model.outside import ONCE, READ, Turn
from tests.model.processes import TASK_CONTROLLER
from tests.model.test_every_crash_point import ASKING, run_once, run_up_to
from tests.model.world import World

import kubechain_mcp_host.calls.handler as call_handler
import kubechain_mcp_host.calls.tool_call as tool_call
import kubechain_task_controller.core.task_decision as task_decision
import kubechain_task_controller.task_reconciler as task_reconciler
import kubechain_toolcall_controller.core.approval as approval
import kubechain_toolcall_controller.core.asking as asking
from kubechain_common.messages.llm import UNKNOWN_CONVERSATION
from kubechain_common.messaging.bus import Bus
from kubechain_common.runtime.inbox import Inbox
from kubechain_mcp_host.calls.execution_decision import Execution

Patch = pytest.MonkeyPatch


def crash_everywhere() -> None:
    for index in range(31):
        run_once({index: Fate.CRASH_AFTER})


def two_leaders() -> None:
    """What the old leader was about to write when it was frozen arrives when the new one is further."""
    with World.opened() as world:
        world.create_task((Turn((ONCE, READ)),))
        run_up_to(world, "PUT tasks")
        held = next(effect for effect in world.effects.pending if effect.label.startswith("PUT tasks"))
        world.effects.pending.remove(held)
        world.invariants.leaders_overlapped = True
        world.advance_time(13.0)
        world.start(TASK_CONTROLLER)
        world.settle()
        world.effects.pending.append(held)
        world.settle()
        world.invariants.check_settled()


def deliver_twice() -> None:
    """NATS and the task-controller are killed together, so that a result comes again and nobody remembers it."""
    for moment in range(30, 60, 3):
        with World.opened() as world:
            world.create_task((Turn((ONCE,)), Turn((READ,))))
            for _ in range(moment):
                world.step(0)
            world.kill_nats()
            world.crash(world.living(TASK_CONTROLLER)[0])
            world.settle()
            world.invariants.check_settled()


def cancel_in_mid_turn() -> None:
    """At every moment at which both calls are there."""
    for moment in range(20, 50):
        with World.opened() as world:
            name = world.create_task((Turn((ONCE, READ)),))
            for _ in range(moment):
                world.step(0)
            world.patch("tasks", name, {"spec": {"cancel": True}})
            world.settle()
            world.invariants.check_settled()


def crash_during_an_approval() -> None:
    for index in range(31):
        run_once({index: Fate.CRASH_AFTER}, script=ASKING)


def guard_nothing(patch: Patch) -> None:
    patch.setattr(ApiServer, "is_current", lambda self, obj, version: True)


def apply_any_turn(patch: Patch) -> None:
    """A result is taken for an answer to whatever turn the Task stands in."""
    decide = task_decision.decide_task

    def careless(snapshot: Any) -> Any:
        if snapshot.result is not None:
            any_turn = {"turn": snapshot.task.status.turn, "conversation": UNKNOWN_CONVERSATION}
            snapshot = replace(snapshot, result=snapshot.result.model_copy(update=any_turn))
        return decide(snapshot)

    patch.setattr(task_reconciler, "decide_task", careless)


def acknowledge_first(patch: Patch) -> None:
    """The result is let go before it is in the Task."""
    take = Inbox.take

    async def hasty(self: Any, message: Any) -> None:
        parked_take = take(self, message)
        parked_take.send(None)
        first = self.first(self._ref_of(message).uid)
        if first is not None:
            first.settled.set()

    patch.setattr(Inbox, "take", hasty)


def publish_without_looking(patch: Patch) -> None:
    """A controller that came up anew takes nothing to be on its way, and the stream takes the request again."""

    async def nothing_there(self: Bus, stream: str, subject: str) -> bool:
        return False

    async def none(self: Bus, stream: str, pattern: str) -> list[str]:
        return []

    patch.setattr(Bus, "has_message", nothing_there)
    patch.setattr(Bus, "find_subjects", none)


def always_run(patch: Patch) -> None:
    async def run(self: Any, tool: Any) -> Execution:
        return Execution.RUN

    patch.setattr(tool_call.ToolCall, "_decide", run)


def acknowledge_before_the_result(patch: Patch) -> None:
    """mcp-host lets the request go and never publishes what came of it."""
    handle = call_handler.CallHandler.handle

    async def forgetful(self: Any, delivery: Any) -> None:
        if delivery.attempt == 1:
            await handle(self, delivery)

    patch.setattr(call_handler.CallHandler, "handle", forgetful)


def approve_everything(patch: Patch) -> None:
    patch.setattr(approval, "needs_approval", lambda server, tool: False)


def ask_whoever_was_asked(patch: Patch) -> None:
    """It is not written down that somebody was asked."""
    patch.setattr(asking, "was_asked", lambda status: False)


def take_every_answer_for_yes(patch: Patch) -> None:
    patch.setattr(approval, "_reject", approval._approve)


def ask_once_and_never_look(patch: Patch) -> None:
    """A controller that came up anew takes everybody to have been asked."""
    build = asking._build_request

    def only_at_first(snapshot: Any, *rest: Any) -> Any:
        return None if asking.is_waiting(snapshot.call) else build(snapshot, *rest)

    patch.setattr(asking, "_build_request", only_at_first)


def cancel_one_by_one(patch: Patch) -> None:
    """The calls that wait are not kept from beginning when those that run are cancelled."""

    async def forbid_nothing(self: Any, namespace: str, names: tuple[str, ...]) -> None:
        pass

    patch.setattr(task_reconciler.TaskReconciler, "_forbid", forbid_nothing)


def take_any_conversation(patch: Patch) -> None:
    """A result is taken for an answer to whatever the Task says to the model now."""
    decide = task_decision.decide_task

    def careless(snapshot: Any) -> Any:
        if snapshot.result is not None:
            update = {"conversation": UNKNOWN_CONVERSATION}
            snapshot = replace(snapshot, result=snapshot.result.model_copy(update=update))
        return decide(snapshot)

    patch.setattr(task_reconciler, "decide_task", careless)


def edit_the_agent_after_a_crash() -> None:
    """The first leader has asked for a turn, and not written that it has begun."""
    with World.opened() as world:
        world.create_task((Turn(),))
        run_up_to(world, "ask the model")
        world.supervised = False
        world.crash(world.living(TASK_CONTROLLER)[0])
        world.patch("agents", "agent", {"spec": {"system": "another"}})
        world.supervised = True
        world.settle()
        world.invariants.check_settled()


def mix_up_results(patch: Patch) -> None:
    """Tool messages in the order in which the calls ended, instead of the model's."""
    build = task_decision.decide_task

    def shuffled(snapshot: Any) -> Any:
        plan = build(snapshot)
        if (
            plan.status is not None
            and len(plan.status.context_window) > 3
            and plan.status.context_window[-1].role == "tool"
        ):
            window = plan.status.context_window
            plan = replace(
                plan, status=plan.status.model_copy(update={"context_window": [*window[:-2], window[-1], window[-2]]})
            )
        return plan

    patch.setattr(task_reconciler, "decide_task", shuffled)


@pytest.mark.parametrize(
    ("defect", "misfortune", "words"),
    [
        (guard_nothing, two_leaders, "t1"),
        (apply_any_turn, deliver_twice, "t1"),
        (acknowledge_first, crash_everywhere, "never ended"),
        (publish_without_looking, crash_everywhere, "asked again"),
        (always_run, crash_everywhere, "must run once"),
        (acknowledge_before_the_result, crash_everywhere, "never ended"),
        (approve_everything, crash_during_an_approval, "ran without approval|though it was rejected"),
        (take_every_answer_for_yes, crash_during_an_approval, "though it was rejected"),
        (ask_whoever_was_asked, crash_during_an_approval, "asked again"),
        (ask_once_and_never_look, crash_during_an_approval, "never ended"),
        (cancel_one_by_one, cancel_in_mid_turn, "may still begin"),
        (mix_up_results, crash_everywhere, "tool messages"),
        (take_any_conversation, edit_the_agent_after_a_crash, "the model read something else"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_the_model_catches(
    defect: Callable[[Patch], None], misfortune: Callable[[], None], words: str, monkeypatch: Patch
) -> None:
    defect(monkeypatch)
    with pytest.raises(Violation, match=words):
        misfortune()


@pytest.mark.parametrize(
    "misfortune",
    [two_leaders, deliver_twice, cancel_in_mid_turn, edit_the_agent_after_a_crash],
    ids=lambda part: part.__name__,
)
def test_without_a_defect_the_same_misfortune_does_no_harm(misfortune: Callable[[], None]) -> None:
    misfortune()
