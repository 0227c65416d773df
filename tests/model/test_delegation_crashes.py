"""A Task that delegates to a sub-agent with a tool, and much that can go wrong once, at the places where it can.

As in ``test_every_crash_point``, with its invariants; beside them there is never a second Task for one delegation, and
nothing of the tree is left once its root is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.model.effects import Fate
from tests.model.outside import HELPER, ONCE, Turn
from tests.model.processes import LED, TASK_CONTROLLER, TOOLCALL_CONTROLLER
from tests.model.world import World

CHILD = "the helper's script"
SCRIPT = (Turn(delegates=(CHILD,)),)
SLOW_WATCHES = (
    (TASK_CONTROLLER, "tasks"),
    (TASK_CONTROLLER, "taskruntoolcalls"),
    (TOOLCALL_CONTROLLER, "tasks"),
    (TOOLCALL_CONTROLLER, "taskruntoolcalls"),
)


def begin(world: World) -> None:
    world.outside.scripts[CHILD] = (Turn((ONCE,)),)
    world.create_task(SCRIPT, agentRef={"name": "boss"})


def run_tree(fates: dict[int, Fate], slow_watch: tuple[str, str] | None = None) -> World:
    """The run with these misfortunes; raises Violation."""
    with World.opened() as world:
        world.slow_watch = slow_watch
        world.fates = fates
        begin(world)
        world.settle()
        world.fates = {}
        world.settle()
        world.invariants.check_settled()
    return world


def every_single(fate: Fate, slow_watch: tuple[str, str] | None = None, *, step: int) -> Iterator[World]:
    for index in range(0, run_tree({}, slow_watch).settled, step):
        yield run_tree({index: fate}, slow_watch)


def tasks_made_for_the_helper(world: World) -> int:
    events = world.server.history["tasks"]
    return sum(e.type == "ADDED" and e.object["spec"]["agentRef"]["name"] == HELPER for e in events)


def status_of_the_root(world: World) -> dict[str, Any]:
    task = world.server.find("tasks", "t1")
    assert task is not None
    status: dict[str, Any] = task["status"]
    return status


def assert_done_once(world: World) -> None:
    assert status_of_the_root(world)["phase"] == "FinalAnswer"
    assert tasks_made_for_the_helper(world) == 1
    assert all(len(runs) == 1 for runs in world.outside.runs.values())
    read = [m["content"] for m in status_of_the_root(world)["contextWindow"] if m["role"] == "tool"]
    assert read in ([f"{CHILD} turn 2 answer {number}"] for number in (1, 2))


def test_the_run_without_misfortune_is_exact() -> None:
    world = run_tree({})
    assert_done_once(world)
    assert set(world.outside.asked.values()) == {1}
    assert len(world.outside.runs) == 1


def test_a_process_may_die_after_every_effect() -> None:
    for world in every_single(Fate.CRASH_AFTER, step=1):
        assert_done_once(world)


@pytest.mark.parametrize(
    "fate",
    [fate for fate in Fate if fate not in (Fate.DONE, Fate.CRASH_AFTER, Fate.INVALID)],
    ids=lambda f: f.value.replace(" ", "-"),
)
def test_effects_may_go_wrong(fate: Fate) -> None:
    for world in every_single(fate, step=4):
        assert_done_once(world)


def test_what_is_written_may_be_refused() -> None:
    for world in every_single(Fate.INVALID, step=3):
        assert tasks_made_for_the_helper(world) <= 1


@pytest.mark.parametrize("slow_watch", SLOW_WATCHES, ids=lambda slow: "-".join(slow))
def test_crashes_with_one_late_watch(slow_watch: tuple[str, str]) -> None:
    for world in every_single(Fate.CRASH_AFTER, slow_watch, step=4):
        assert_done_once(world)


@pytest.mark.parametrize("slow_watch", [None, (TASK_CONTROLLER, "tasks")], ids=lambda slow: "-".join(slow or ("none",)))
@pytest.mark.parametrize("how", ["delete", "cancel"])
def test_the_root_may_end_at_any_moment(how: str, slow_watch: tuple[str, str] | None) -> None:
    """Whatever of the tree there is by then ends too, nothing is made again, and nothing is left."""
    for moment in range(0, 90, 9):
        with World.opened() as world:
            world.slow_watch = slow_watch
            begin(world)
            for _ in range(moment):
                world.step(0)
            if world.server.find("tasks", "t1"):
                if how == "delete":
                    world.delete("tasks", "t1")
                else:
                    world.patch("tasks", "t1", {"spec": {"cancel": True}})
            world.settle()
            world.invariants.check_settled()
            assert tasks_made_for_the_helper(world) <= 1
            if how == "delete":
                assert world.server.all("tasks") == world.server.all("taskruntoolcalls") == []


@pytest.mark.parametrize("service", LED)
def test_a_second_leader_does_not_delegate_again(service: str) -> None:
    """The first one was frozen at any of its effects, and goes on when the tree is done."""
    for moment in range(0, 90, 6):
        with World.opened() as world:
            begin(world)
            for _ in range(moment):
                world.step(0)
            frozen = world.living(service)[0]
            held = [e for e in world.effects.pending if e.process is frozen]
            for effect in held:
                world.effects.pending.remove(effect)
            world.invariants.leaders_overlapped = True
            world.advance_time(13.0)
            world.start(service)
            for _ in range(150):
                world.step(0)
            world.effects.pending += held
            world.settle()
            world.crash(frozen)
            world.settle()
            world.invariants.check_settled()
            assert tasks_made_for_the_helper(world) == 1
            assert all(len(runs) == 1 for runs in world.outside.runs.values())
