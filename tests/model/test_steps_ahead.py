"""The task-controller dies after it has asked for a turn and before that is written, and something changes meanwhile.

Each Task ends all the same; the model is asked once, unless what is said to it has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.model.api_server import Wire
from tests.model.outside import ONCE, READ, SERVER, Turn
from tests.model.processes import LLM_GATEWAY, TASK_CONTROLLER
from tests.model.world import World

import kubechain_task_controller.__main__ as task_module
import kubechain_task_controller.task_reconciler as task_reconciler
from kubechain_common.api.names import tool_call_name
from kubechain_common.kube.errors import ForbiddenError
from kubechain_common.messages.topology import LLM_RESULTS_CONSUMER

_CONNECTED = {"ready": True, "connected": True, "status": "Ready", "observedGeneration": 1}
_LOST = {"ready": False, "connected": False, "status": "Error", "observedGeneration": 1}


def run_to(world: World, label: str) -> None:
    """Until what starts with this is the next thing that happens."""
    for _ in range(3000):
        choice = next(iter(world.choices()), None)
        if choice is not None and label in choice.label:
            return
        if not world.step(0):
            world.advance_time(0.01)
    raise AssertionError("never got there:\n" + "\n".join(world.effects.trace))


def die_ahead(world: World, turn: int = 1) -> None:
    """The controller asks for the turn and dies; nobody takes its place yet."""
    run_to(world, f"-t1.{turn}.")
    world.step(0)
    world.supervised = False
    world.crash(world.living(TASK_CONTROLLER)[0])


def go_on(world: World, *, seconds: float = 5.0) -> None:
    """For so long, whoever is missing stays so."""
    world.settle(seconds=seconds, stop=lambda: False)


def finish(world: World) -> Wire:
    """All is repaired and the Task ends; its status."""
    world.supervised = True
    world.settle()
    world.invariants.check_settled()
    return status_of(world)


def status_of(world: World) -> Wire:
    task = world.server.find("tasks", "t1")
    assert task is not None
    status: Wire = task["status"]
    return status


def refuse(world: World, plural: str) -> None:
    """The API server takes no such objects."""
    create = world.server.create

    def create_or_not(key: tuple[str, str, str], body: Mapping[str, Any], by: str) -> Wire:
        if key[0] == plural:
            raise ForbiddenError("exceeded quota")
        return create(key, body, by)

    world.server.create = create_or_not  # type: ignore[method-assign]


@pytest.mark.parametrize("ends_with", ["an answer", "a tool call"])
def test_an_answer_waits_for_an_agent_that_turned_unready(ends_with: str) -> None:
    with World.opened() as world:
        world.create_task((Turn((READ,) if ends_with == "a tool call" else ()),))
        die_ahead(world)
        world.patch("mcpservers", SERVER, {"status": _LOST}, "status")
        world.patch("agents", "agent", {"status": {"ready": False, "status": "Pending"}}, "status")
        go_on(world)
        world.start(TASK_CONTROLLER)
        go_on(world)
        assert status_of(world)["phase"] == "Pending"
        world.patch("mcpservers", SERVER, {"status": _CONNECTED}, "status")
        assert finish(world)["phase"] == "FinalAnswer"
        assert set(world.outside.asked.values()) == {1}


def test_a_request_that_looks_unwanted_for_a_moment_is_answered() -> None:
    """The gateway that gets it anew finds a Task that waits for its Agent."""
    with World.opened() as world:
        world.create_task(())
        run_to(world, "publish kubechain.llm.request.")
        world.supervised = False
        world.crash(world.living(LLM_GATEWAY)[0])
        die_ahead(world)
        world.patch("mcpservers", SERVER, {"status": _LOST}, "status")
        world.patch("agents", "agent", {"status": {"ready": False, "status": "Pending"}}, "status")
        world.start(TASK_CONTROLLER)
        go_on(world)
        assert status_of(world)["phase"] == "Pending"
        world.start(LLM_GATEWAY)
        go_on(world)
        world.patch("mcpservers", SERVER, {"status": _CONNECTED}, "status")
        assert finish(world)["phase"] == "FinalAnswer"
        assert set(world.outside.asked.values()) == {1}


def test_a_call_that_was_refused_is_refused_again_and_the_answer_stays() -> None:
    with World.opened() as world:
        refuse(world, "taskruntoolcalls")
        world.create_task((Turn((READ,)),))
        die_ahead(world, 2)
        go_on(world)
        assert finish(world)["phase"] == "FinalAnswer"
        assert world.outside.asked == {("script 1", 1): 1, ("script 1", 2): 1}


def test_a_call_of_somebody_else_holds_nobody_up() -> None:
    """It has the name of the Task's, does not end, and the gateway gets the request a second time."""
    with World.opened() as world:
        world.create_task((Turn((READ,)),))
        task = world.server.find("tasks", "t1")
        assert task is not None
        name = tool_call_name("t1", task["metadata"]["uid"], 1, 1)
        wish = {"toolCallId": "x", "taskRunRef": {"name": "other"}, "toolRef": {"name": "t"}, "arguments": "{}"}
        world.invariants.unfinished = lambda: []  # type: ignore[method-assign]  # the stranger's stays as it is
        world.apply("taskruntoolcalls", "TaskRunToolCall", name, wish)
        run_to(world, "publish kubechain.llm.request.uid-1-llm.default." + task["metadata"]["uid"] + ".2.")
        world.supervised = False
        world.crash(world.living(LLM_GATEWAY)[0])
        world.step(0)
        world.start(LLM_GATEWAY)
        world.settle(stop=lambda: status_of(world)["phase"] == "FinalAnswer")
        assert status_of(world)["phase"] == "FinalAnswer"


def test_an_answer_to_a_question_is_no_summary() -> None:
    """The limit of the Agent is lowered, so that the turn which was asked for would be one that summarises."""
    with World.opened() as world:
        spec = {"llmRef": {"name": "llm"}, "system": "s", "mcpServers": [{"name": SERVER}]}
        context = {"maxTokens": 100_000, "onOverflow": "Summarise"}
        world.apply("agents", "Agent", "special", {**spec, "context": context})
        go_on(world)
        script = (Turn((ONCE,)), Turn((ONCE,), reads=9000), Turn(), Turn())
        world.create_task(script, agentRef={"name": "special"})
        die_ahead(world, 3)
        world.patch("agents", "special", {"spec": {"context": {"maxTokens": 5000}}})
        go_on(world)
        world.outside.scripts["script 1"] = (*script[:2], Turn(summary=True), Turn())
        status = finish(world)
        assert status["phase"] == "FinalAnswer"
        assert [m["role"] for m in status["contextWindow"]][-1] == "assistant"


def test_a_source_that_is_deleted_meanwhile_was_copied() -> None:
    with World.opened() as world:
        world.invariants.check = lambda: None  # type: ignore[method-assign]  # they know no Task that goes on from another
        world.create_task((), name="t0")
        world.settle()
        world.create_task((), name="t1", contextWindowFrom={"taskRef": {"name": "t0"}})
        die_ahead(world)
        world.delete("tasks", "t0")
        go_on(world)
        world.supervised = True
        world.settle(stop=lambda: status_of(world).get("phase") == "FinalAnswer")
        assert status_of(world)["phase"] == "FinalAnswer"


class Frozen:
    """A controller of which nothing happens for a while: no effect, no watch, no delivery."""

    def __init__(self, world: World) -> None:
        self.world = world
        (self.process,) = world.living(TASK_CONTROLLER)
        self.held = [effect for effect in world.effects.pending if effect.process is self.process]
        world.effects.pending = [effect for effect in world.effects.pending if effect.process is not self.process]
        world.watches = [watch for watch in world.watches if watch.process is not self.process]
        world.pulls = [pull for pull in world.pulls if pull.process is not self.process]

    def run_on(self) -> None:
        """It does all that it has in mind before it hears that another one leads."""
        self.world.effects.pending[:0] = self.held
        for _ in range(20):
            mine = next((e for e in self.world.effects.pending if e.process is self.process), None)
            if mine is None:
                break
            self.world.settle_effect(mine)
        self.world.crash(self.process)


def begin_anew(world: World, **agent: Any) -> None:
    """The Agent is edited, and a second controller asks for the turn."""
    for name, spec in agent.items():
        world.patch("agents", name, {"spec": spec})
    world.start(TASK_CONTROLLER)
    run_to(world, "task-controller-1: publish kubechain.llm.request.")
    world.step(0)
    for _ in range(10):
        world.step(0)


def test_who_was_overtaken_while_it_stored_a_text_takes_nothing_back() -> None:
    with World.opened() as world:
        spec = {"llmRef": {"name": "llm"}, "system": "s" * 5000, "mcpServers": [{"name": SERVER}]}
        world.apply("agents", "Agent", "special", spec)
        go_on(world)
        world.outside.thinks_for = 30.0
        world.create_task((), agentRef={"name": "special"})
        run_to(world, "POST configmaps")
        late = Frozen(world)
        begin_anew(world, special={"system": "t" * 5000})
        late.run_on()
        assert finish(world)["phase"] == "FinalAnswer"


def test_who_was_overtaken_with_a_draft_takes_nothing_back_when_it_looks_again() -> None:
    with World.opened() as world:
        world.outside.thinks_for = 30.0
        world.create_task(())
        run_to(world, "publish kubechain.llm.request.")
        world.step(0)
        late = Frozen(world)
        begin_anew(world, agent={"system": "another"})
        client = next(c for c in world.clients if c.process is late.process)
        world.run_in(late.process, client.lose_connection())
        world.run_in(late.process, client.reconnect())
        late.run_on()
        assert finish(world)["phase"] == "FinalAnswer"


def test_results_that_wait_for_their_turns_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at a time in place of 1,024, and one that may wait in place of 512."""
    few = replace(LLM_RESULTS_CONSUMER, max_ack_pending=3)
    monkeypatch.setattr(task_module, "LLM_RESULTS_CONSUMER", few)
    monkeypatch.setattr(task_reconciler, "_ROOM_FOR_LATER", 1)
    with World.opened() as world:
        spec = {"llmRef": {"name": "llm"}, "system": "s", "mcpServers": [{"name": SERVER}]}
        world.apply("agents", "Agent", "special", spec)
        go_on(world)
        for number in range(4):
            world.create_task((), name=f"t{number}", agentRef={"name": "special"})
        for number in range(4):
            run_to(world, f"-t{number}.1.")
            world.step(0)
        world.supervised = False
        world.crash(world.living(TASK_CONTROLLER)[0])
        world.patch("agents", "special", {"spec": {"mcpServers": [{"name": "gone"}]}})
        go_on(world)
        world.start(TASK_CONTROLLER)
        go_on(world)
        world.create_task((), name="other")
        go_on(world)
        other = world.server.find("tasks", "other")
        assert other is not None
        assert other["status"]["phase"] == "FinalAnswer"
        world.invariants.allow_turns_again()
        world.patch("agents", "special", {"spec": {"mcpServers": [{"name": SERVER}]}})
        assert finish(world)["phase"] == "FinalAnswer"
