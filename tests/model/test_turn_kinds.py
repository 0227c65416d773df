"""Turns that follow an answer at once, and the book of a namespace's budget: everything goes wrong once, everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.model.effects import Fate
from tests.model.outside import ONCE, SERVER, Turn
from tests.model.world import World

FATES = list(Fate)[1:]
CRASHES = (Fate.CRASH_BEFORE, Fate.CRASH_AFTER)
FATE_NAMES = [fate.value.replace(" ", "-") for fate in FATES]

SHORT = {"context": {"maxTokens": 5000, "onOverflow": "Summarise"}}
SUMMARISED = (Turn((ONCE,)), Turn((ONCE,), reads=9000), Turn(summary=True), Turn())

FORMATTED = {"responseFormat": {"type": "JSONSchema", "jsonSchema": {"type": "string"}}}
CORRECTED = (Turn((ONCE,)), Turn(), Turn(json=True))

Status = dict[str, Any]


def run_once(fates: dict[int, Fate], agent: dict[str, Any], script: tuple[Turn, ...]) -> World:
    """The run of a Task of such an Agent with these misfortunes; raises Violation."""
    with World.opened() as world:
        spec = {"llmRef": {"name": "llm"}, "system": "s", "mcpServers": [{"name": SERVER}], **agent}
        world.apply("agents", "Agent", "special", spec)
        world.settle(seconds=5.0, stop=lambda: False)
        world.settled = 0
        world.fates = fates
        world.create_task(script, agentRef={"name": "special"})
        world.settle()
        world.fates = {}
        world.settle()
        world.invariants.check_settled()
    return world


def every_single(fates: tuple[Fate, ...], agent: dict[str, Any], script: tuple[Turn, ...]) -> Iterator[Status]:
    for index in range(run_once({}, agent, script).settled):
        for fate in fates:
            yield status_of(run_once({index: fate}, agent, script))


def status_of(world: World) -> Status:
    task = world.server.find("tasks", "t1")
    assert task is not None
    status: Status = task["status"]
    return status


def roles(status: Status) -> str:
    return " ".join(message["role"][:2] for message in status["contextWindow"])


def check_summarised(status: Status) -> None:
    assert (status["phase"], status["turn"]) == ("FinalAnswer", 4)
    assert roles(status) == "sy us as to as to su as"
    assert status["contextWindow"][6]["keeps"] == 2
    assert "summaryKeeps" not in status


def check_corrected(status: Status) -> None:
    assert (status["phase"], status["turn"]) == ("FinalAnswer", 3)
    assert roles(status) == "sy us as to as us as"
    assert json.loads(status["output"]).startswith("script 1 turn 3")


CASES: list[Any] = [
    pytest.param(SHORT, SUMMARISED, check_summarised, id="summary"),
    pytest.param(FORMATTED, CORRECTED, check_corrected, id="correction"),
]


@pytest.mark.parametrize(("agent", "script", "check"), CASES)
def test_the_run_without_misfortune_is_exact(
    agent: dict[str, Any], script: tuple[Turn, ...], check: Callable[[Status], None]
) -> None:
    world = run_once({}, agent, script)
    check(status_of(world))
    assert set(world.outside.asked.values()) == {1}


@pytest.mark.parametrize("fate", FATES, ids=FATE_NAMES)
@pytest.mark.parametrize(("agent", "script", "check"), CASES)
def test_every_effect_may_go_wrong(
    agent: dict[str, Any], script: tuple[Turn, ...], check: Callable[[Status], None], fate: Fate
) -> None:
    for status in every_single((fate,), agent, script):
        if fate is not Fate.INVALID:
            check(status)


# --- the book of a namespace's budget

ONE_TURN = "2"
"""Tokens; an answer that was lost is asked for again, and costs more."""


def run_over_budget(fates: dict[int, Fate]) -> World:
    """A Task uses the budget up and is deleted at once; another one comes after it."""
    annotations = {"kubechain.humanlayer.dev/budget-tokens": ONE_TURN}
    with World.opened() as world:
        world.server.create(
            ("namespaces", "", "default"), {"metadata": {"name": "default", "annotations": annotations}}, "user"
        )
        world.settle(seconds=5.0, stop=lambda: False)
        world.settled = 0
        world.fates = fates
        first = world.create_task((), ttlSecondsAfterFinished=0)
        world.settle(stop=lambda: world.server.find("tasks", first) is None)
        assert world.server.find("tasks", first) is None
        world.create_task(())
        world.settle(seconds=60.0, stop=lambda: False)
        world.invariants.check()
    return world


def test_a_budget_that_a_deleted_task_used_up_holds_whatever_goes_wrong() -> None:
    for index in range(run_over_budget({}).settled):
        for fate in FATES:
            world = run_over_budget({index: fate})
            second = world.server.find("tasks", "t2")
            assert second is not None
            if fate is not Fate.INVALID:
                assert second["status"]["phase"] == "Pending", (index, fate)
                assert "has used up its budget of 2 tokens" in second["status"]["statusDetail"]
