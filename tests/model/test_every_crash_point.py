"""One Task with two turns and two tool calls, and everything that can go wrong once, at every place where it can.

Every effect of the run in turn does not happen, or happens unheard, or is the last thing that its process does or does
not do; with every watch in step, and with each single watch as late as it can be. Nothing is left to chance here:
``test_crash_points`` looks for what takes more than one misfortune.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.model.effects import Fate
from tests.model.outside import CHANNEL, GUARDED, ONCE, READ, REFUSAL, REFUSED, SERVER, Turn
from tests.model.processes import LLM_GATEWAY, MCP_HOST, TASK_CONTROLLER, TOOLCALL_CONTROLLER
from tests.model.world import World

from kubechain_task_controller.drafts import HOLD

SCRIPT = (Turn((ONCE, READ)),)
ASKING = (Turn((GUARDED, REFUSED)),)
LONG = 2 * HOLD
"""Seconds after which that a turn has begun was written by itself."""
UNKNOWN_OUTCOME = "Error: The outcome of the call is unknown"
HOST_DIED = "its host died before the result was recorded"
CRASHES = (Fate.CRASH_BEFORE, Fate.CRASH_AFTER)
SLOW_WATCHES = (
    (TASK_CONTROLLER, "tasks"),
    (TASK_CONTROLLER, "taskruntoolcalls"),
    (TOOLCALL_CONTROLLER, "taskruntoolcalls"),
)


def blames_nobody(world: World, fate: Fate) -> bool:
    """No host is said to have died where none did."""
    return fate in CRASHES or not any(HOST_DIED in read for read in tool_messages(world))


def run_once(
    fates: dict[int, Fate],
    slow_watch: tuple[str, str] | None = None,
    script: tuple[Turn, ...] = SCRIPT,
    channel: dict[str, object] | None = None,
    thinks_for: float = 0.0,
) -> World:
    """The run with these misfortunes; raises Violation. Nobody answers where ``channel`` has a deadline, and the model
    takes ``thinks_for`` seconds.
    """
    with World.opened() as world:
        world.outside.thinks_for = thinks_for
        if channel is not None:
            world.apply("contactchannels", "ContactChannel", CHANNEL, {"type": "inbox", **channel})
            world.outside.people_answer = False
        world.slow_watch = slow_watch
        world.fates = fates
        world.create_task(script)
        world.settle()
        world.fates = {}
        world.settle()
        world.invariants.check_settled()
    return world


def every_single(
    fates: tuple[Fate, ...],
    slow_watch: tuple[str, str] | None,
    script: tuple[Turn, ...] = SCRIPT,
    channel: dict[str, object] | None = None,
    thinks_for: float = 0.0,
) -> Iterator[World]:
    for index in range(run_once({}, slow_watch, script, channel, thinks_for).settled):
        for fate in fates:
            yield run_once({index: fate}, slow_watch, script, channel, thinks_for)


def tool_messages(world: World) -> list[str]:
    """What the model read of its tools."""
    task = world.server.find("tasks", "t1")
    assert task is not None
    assert task["status"]["phase"] == "FinalAnswer"
    return [message["content"] for message in task["status"]["contextWindow"] if message["role"] == "tool"]


@pytest.mark.parametrize(("thinks_for", "writes"), [(0.0, 2), (LONG, 4)], ids=["soon", "later"])
def test_the_run_without_misfortune_is_exact(thinks_for: float, writes: int) -> None:
    world = run_once({}, thinks_for=thinks_for)
    assert sum(line.endswith("PUT tasks/t1/status [done]") for line in world.effects.trace) == writes
    task = world.server.find("tasks", "t1")
    assert task is not None
    status = task["status"]
    assert (status["phase"], status["turn"], status["output"]) == ("FinalAnswer", 2, "script 1 turn 2 answer 1")
    assert [message["role"] for message in status["contextWindow"]] == [
        "system", "user", "assistant", "tool", "tool", "assistant"
    ]  # fmt: skip
    assert world.outside.asked == {("script 1", 1): 1, ("script 1", 2): 1}
    assert sorted(len(runs) for runs in world.outside.runs.values()) == [1, 1]


@pytest.mark.parametrize("fate", list(Fate)[1:], ids=lambda fate: fate.value.replace(" ", "-"))
@pytest.mark.parametrize("thinks_for", [0.0, LONG], ids=["soon", "later"])
def test_every_effect_may_go_wrong(thinks_for: float, fate: Fate) -> None:
    for world in every_single((fate,), None, thinks_for=thinks_for):
        task = world.server.find("tasks", "t1")
        assert task is not None
        if fate is not Fate.INVALID:
            assert task["status"]["phase"] == "FinalAnswer"
            assert blames_nobody(world, fate)


@pytest.mark.parametrize("slow_watch", SLOW_WATCHES, ids=lambda slow: "-".join(slow))
@pytest.mark.parametrize("thinks_for", [0.0, LONG], ids=["soon", "later"])
def test_every_crash_with_one_late_watch(thinks_for: float, slow_watch: tuple[str, str]) -> None:
    for world in every_single((Fate.CRASH_AFTER,), slow_watch, thinks_for=thinks_for):
        task = world.server.find("tasks", "t1")
        assert task is not None
        assert task["status"]["phase"] == "FinalAnswer"


@pytest.mark.parametrize("fate", list(Fate)[1:], ids=lambda fate: fate.value.replace(" ", "-"))
def test_every_effect_of_an_approval_may_go_wrong(fate: Fate) -> None:
    for world in every_single((fate,), None, ASKING):
        if fate is not Fate.INVALID:
            guarded, refused = tool_messages(world)
            assert guarded.endswith("run 1") or guarded.startswith(UNKNOWN_OUTCOME)
            assert refused == REFUSAL
            assert blames_nobody(world, fate)
            assert len(world.outside.people_asked) == 2


@pytest.mark.parametrize("slow_watch", SLOW_WATCHES, ids=lambda slow: "-".join(slow))
def test_every_crash_of_an_approval_with_one_late_watch(slow_watch: tuple[str, str]) -> None:
    for world in every_single((Fate.CRASH_AFTER,), slow_watch, ASKING):
        assert tool_messages(world)[1] == REFUSAL


@pytest.mark.parametrize("approves", [False, True])
def test_every_crash_of_a_decision_that_nobody_makes_in_time(approves: bool) -> None:
    channel: dict[str, object] = {"timeoutSeconds": 60, "onTimeout": "Approve" if approves else "Reject"}
    for world in every_single(CRASHES, None, (Turn((GUARDED,)),), channel):
        (read,) = tool_messages(world)
        if approves:
            assert read.endswith("run 1") or read.startswith(UNKNOWN_OUTCOME)
        else:
            assert read == "Nobody answered within 60 seconds"


def test_a_call_follows_a_server_that_was_made_anew() -> None:
    """Its second request, on another subject, is no duplicate of the first (JetStream remembers ids for 2 minutes)."""
    with World.opened() as world:
        world.supervised = False
        world.crash(world.living(MCP_HOST)[0])
        world.create_task((Turn((ONCE,)),))
        world.settle(seconds=0.5)
        world.slow_watch = (TOOLCALL_CONTROLLER, "mcpservers")
        world.delete("mcpservers", SERVER)
        world.apply_server()
        watch = next(w for w in world.watches if (w.process.service, w.plural) == world.slow_watch)
        watch.break_off()  # it lists again, and so sees the new server without the end of the old one
        world.supervised = True
        world.settle()
        world.invariants.check_settled()


def test_a_call_that_ran_is_not_run_again_when_it_and_the_record_of_it_are_gone() -> None:
    """Deleted and made again after a loss of storage, it is younger than the new record; its execution is not."""
    with World.opened() as world:
        world.create_task((Turn((ONCE,)),))
        while not world.outside.runs:
            world.step(0)
        world.advance_time(1.0)
        world.crash(world.living(MCP_HOST)[0])
        world.lose_storage()
        while reconnects := [c for c in world.choices() if c.label.endswith("reconnects")]:
            reconnects[0].take()
        world.advance_time(2.0)
        world.delete("taskruntoolcalls", world.server.all("taskruntoolcalls")[0]["metadata"]["name"])
        world.settle()
        world.invariants.check_settled()


def test_an_answer_that_nats_and_its_gateway_forgot_is_not_asked_for_again() -> None:
    """The request comes back as a first delivery, moments old, to a gateway that knows nothing of it."""
    with World.opened() as world:
        world.create_task((Turn((ONCE,)),))
        step_until(world, "ack kubechain.llm.request.")
        world.kill_nats()
        world.crash(world.living(LLM_GATEWAY)[0])
        world.settle()
        world.invariants.check_settled()
        assert set(world.outside.asked.values()) == {1}


def test_an_answer_that_was_stored_after_its_request_was_looked_for_is_not_asked_for_again() -> None:
    """The storage is lost during the call, and the controller publishes again in the moment of the answer."""
    with World.opened() as world:
        world.create_task((Turn((ONCE,)),))
        run_up_to(world, "ask the model")
        world.lose_storage()
        run_up_to(world, "publish kubechain.llm.request.", but="ask the model")
        run_up_to(world, "nothing", but="publish kubechain.llm.request.", steps=20)
        world.settle()
        world.invariants.check_settled()
        assert set(world.outside.asked.values()) == {1}


def test_the_request_of_a_leader_that_was_frozen_is_not_taken_for_a_new_one() -> None:
    """It wrote the Task, was overtaken before it could publish, and wakes up when the answer was taken long ago."""
    with World.opened() as world:
        world.create_task((Turn((ONCE,)),))
        run_up_to(world, "publish kubechain.llm.request.")
        frozen = world.living(TASK_CONTROLLER)[0]
        held = next(e for e in world.effects.pending if e.process is frozen)
        world.effects.pending.remove(held)
        world.invariants.leaders_overlapped = True
        world.advance_time(13.0)
        world.start(TASK_CONTROLLER)
        while world.outside.asked != {("script 1", 1): 1, ("script 1", 2): 1}:
            world.step(0)
        world.effects.pending.append(held)
        world.settle()
        world.invariants.check_settled()
        assert set(world.outside.asked.values()) == {1}


def step_until(world: World, label: str) -> None:
    """Takes this step and stops."""
    while not (choices := world.choices())[0].label.partition(": ")[2].startswith(label):
        world.step(0)
    choices[0].take()


def run_up_to(world: World, label: str, *, but: str = "\0", steps: int = 500) -> None:
    """Until this is what some process is about to do; without whatever does what ``but`` says."""
    for _ in range(steps):
        if any(effect.label.startswith(label) for effect in world.effects.pending):
            return
        ready = [n for n, choice in enumerate(world.choices()) if but not in choice.label]
        if not ready:
            world.advance_time(0.1)
        else:
            world.step(ready[0])


def test_a_task_that_was_given_more_time_in_the_last_moment_is_not_deleted() -> None:
    """task-controller has not heard of it when the time that it knows of is over."""
    with World.opened() as world:
        name = world.create_task((), ttlSecondsAfterFinished=60)
        world.settle()
        world.patch("tasks", name, {"spec": {"ttlSecondsAfterFinished": 600}})
        world.advance_time(61.0)
        step_until(world, "DELETE tasks")
        assert world.server.find("tasks", name) is not None
        world.settle(seconds=300.0, stop=lambda: False)
        assert world.server.find("tasks", name) is not None
        world.settle(stop=lambda: world.server.find("tasks", name) is None)
        assert world.server.find("tasks", name) is None
