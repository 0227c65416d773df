"""etcd goes back to an older snapshot while JetStream keeps what came after it: each Task ends all the same.

The services are stopped at the moment when JetStream holds a message of a turn that the restored Task has not begun.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.model.api_server import Wire
from tests.model.jetstream import Message
from tests.model.outside import GUARDED, ONCE, READ, REFUSAL, Turn
from tests.model.world import World

from kubechain_common.messages.topology import LLM_REQUESTS, LLM_RESULTS

SCRIPT = (Turn((READ,)), Turn((ONCE,)), Turn((READ,), failures=1), Turn())
AT_ONCE, LATER = 0.0, 600.0
"""Seconds that a restore takes: JetStream still remembers what was published, or does not."""
MAX_STEPS = 2000


def go_on_until(world: World, reached: Callable[[], bool]) -> None:
    for _ in range(MAX_STEPS):
        if reached():
            return
        if not world.step(0):
            world.advance_time(1.0)
    raise AssertionError("never got there:\n" + "\n".join(world.effects.trace))


def turn_of(world: World, name: str) -> int:
    task = world.server.find("tasks", name)
    turn: int = (task or {}).get("status", {}).get("turn", 0)
    return turn


def messages_of(world: World, stream: str) -> list[Message]:
    return list(world.nats.streams[stream].messages.values())


@pytest.mark.parametrize("turn", [0, 2])
@pytest.mark.parametrize("after", [AT_ONCE, LATER], ids=["at once", "later"])
@pytest.mark.parametrize(
    ("stream", "ending"),
    [
        (LLM_RESULTS.name, r"\.3\.\w+"),
        (LLM_RESULTS.name, r"\.3\.\w+\.retry\.1"),
        (LLM_RESULTS.name, r"\.4\.\w+"),
        (LLM_REQUESTS.name, r"\.3\.\w+"),
    ],
    ids=["answer", "notice", "answer of the last turn", "request"],
)
def test_a_message_of_a_lost_future_blocks_nobody(turn: int, stream: str, ending: str, after: float) -> None:
    with World.opened() as world:
        name = world.create_task(SCRIPT)
        go_on_until(world, lambda: turn_of(world, name) == turn)
        snapshot = world.server.save()
        go_on_until(world, lambda: any(re.search(f"{ending}$", m.subject) for m in messages_of(world, stream)))
        world.restore_api_server(snapshot, after)
        world.settle()
        world.invariants.check_settled()
        task = world.server.find("tasks", name)
        assert task is not None
        assert (task["status"]["phase"], task["status"]["turn"]) == ("FinalAnswer", 4)


@pytest.mark.parametrize("after", [AT_ONCE, LATER], ids=["at once", "later"])
def test_a_call_that_ran_before_the_restore_and_is_refused_after_it_ends(after: float) -> None:
    with World.opened() as world:
        name = world.create_task((Turn((GUARDED,)), Turn()))

        def call_of() -> Wire:
            return next(iter(world.server.all("taskruntoolcalls")), {})

        def is_asked() -> bool:
            return any(c["type"] == "HumanAsked" for c in call_of().get("status", {}).get("conditions", ()))

        go_on_until(world, is_asked)
        snapshot = world.server.save()
        go_on_until(world, lambda: turn_of(world, name) == 2)
        world.outside.refused.add(GUARDED)
        world.restore_api_server(snapshot, after)
        world.settle()
        world.invariants.check_settled()
        status, task = call_of()["status"], world.server.find("tasks", name)
        assert (status["phase"], status["reason"]) == ("Failed", "OutcomeUnknown")
        assert "whether it took effect is unknown" in status["error"]
        assert REFUSAL in status["error"]
        assert task is not None
        assert task["status"]["phase"] == "FinalAnswer"
