"""Hypothesis drives the real services through orders, duplicates, late watches, crashes and losses, many at a time.

A step takes any of the choices that the world has; a fault is put between any two of them. After every step the
invariants hold (``invariants``), and in the end, once nothing goes wrong any more, every Task ends.

In the stage of `make test` the examples are few and always the same. ``make model`` looks for new ones for minutes:
``KUBECHAIN_MODEL_EXAMPLES`` is how many, ``KUBECHAIN_MODEL_STEPS`` how long each one is.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.model.effects import Fate
from tests.model.outside import CHANNEL, SERVER, TOOL_KINDS, Turn
from tests.model.processes import LED, SERVICES
from tests.model.world import World

EXAMPLES = int(os.environ.get("KUBECHAIN_MODEL_EXAMPLES", "0"))
STEPS = int(os.environ.get("KUBECHAIN_MODEL_STEPS", "25"))
_MAX_TASKS = 2
LEASE_SECONDS = 10.0
"""A leader that lasted longest without a word; nobody takes over before."""

turns = st.builds(
    Turn,
    tools=st.lists(st.sampled_from(TOOL_KINDS), max_size=3).map(tuple),
    failures=st.sampled_from([0, 0, 0, 1]),
    rejects=st.sampled_from([False] * 9 + [True]),
)
numbers = st.integers(0, 40)


class CrashPoints(RuleBasedStateMachine):
    """Rules are what the world, people and misfortune do."""

    def __init__(self) -> None:
        super().__init__()
        self._opened = World.opened()
        self.world: World = self._opened.__enter__()
        self.world.supervised = True
        self.tasks: list[str] = []

    @initialize(
        script=st.lists(turns, min_size=1, max_size=3).map(tuple), thinks_for=st.sampled_from([0.0, 0.0, 0.5, 3.0])
    )
    def begin(self, script: tuple[Turn, ...], thinks_for: float) -> None:
        self.world.outside.thinks_for = thinks_for
        self.tasks.append(self.world.create_task(script))

    # --- what goes its way ---

    @precondition(lambda self: len(self.tasks) < _MAX_TASKS)
    @rule(script=st.lists(turns, min_size=1, max_size=3).map(tuple), deadline=st.sampled_from([None, None, None, 30]))
    def create(self, script: tuple[Turn, ...], deadline: int | None) -> None:
        spec: dict[str, Any] = {"activeDeadlineSeconds": deadline} if deadline else {}
        self.tasks.append(self.world.create_task(script, **spec))

    @rule(choices=st.lists(numbers, min_size=1, max_size=25))
    def go_on(self, choices: list[int]) -> None:
        """In any order."""
        for number in choices:
            self.world.step(number)

    @rule(steps=st.integers(1, 60))
    def go_on_in_order(self, steps: int) -> None:
        """Oldest first: so a run gets far enough for something to go wrong late."""
        for _ in range(steps):
            self.world.step(0)

    @rule(seconds=st.sampled_from([0.01, 1.0, 6.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance_time(seconds)

    # --- what goes wrong ---

    @precondition(lambda self: bool(self.world.effects.pending))
    @rule(number=numbers, fate=st.sampled_from([fate for fate in Fate if fate is not Fate.DONE]))
    def an_effect_goes_wrong(self, number: int, fate: Fate) -> None:
        pending = self.world.effects.pending
        self.world.settle_effect(pending[number % len(pending)], fate)

    @rule(service=st.sampled_from(SERVICES))
    def crash(self, service: str) -> None:
        for process in self.world.living(service)[:1]:
            self.world.crash(process)
            self.world.after_step()

    @rule(service=st.sampled_from(LED))
    def a_second_leader(self, service: str) -> None:
        """The old one still acts, on what it knows; it may never hear that it lost the Lease."""
        if len(self.world.living(service)) == 1:
            self.world.invariants.leaders_overlapped = True
            self.world.advance_time(LEASE_SECONDS)
            self.world.start(service)

    @rule()
    def heartbeats_are_late(self) -> None:
        self.world.nats.expire_waits()

    @rule()
    def nats_is_killed(self) -> None:
        self.world.kill_nats()

    @rule()
    def storage_is_lost(self) -> None:
        self.world.lose_storage()

    @rule(number=numbers)
    def a_watch_loses_its_history(self, number: int) -> None:
        if self.world.watches:
            self.world.watches[number % len(self.world.watches)].break_off()
            self.world.after_step()

    # --- what people do ---

    @rule(ready=st.booleans())
    def the_llm_changes(self, ready: bool) -> None:
        word = "Ready" if ready else "Error"
        self.world.patch("llms", "llm", {"status": {"ready": ready, "status": word}}, "status")

    @rule(name=st.sampled_from(["llm", "llm2"]), system=st.sampled_from(["s", "s", "another"]))
    def the_agent_is_edited(self, name: str, system: str) -> None:
        self.world.patch("agents", "agent", {"spec": {"llmRef": {"name": name}, "system": system}})

    @precondition(lambda self: bool(self.tasks))
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        name = self.tasks[number % len(self.tasks)]
        if self.world.server.find("tasks", name):
            self.world.patch("tasks", name, {"spec": {"cancel": True}})

    @precondition(lambda self: bool(self.tasks))
    @rule(number=numbers)
    def delete_task(self, number: int) -> None:
        name = self.tasks[number % len(self.tasks)]
        if self.world.server.find("tasks", name):
            self.world.delete("tasks", name)

    @rule(number=numbers)
    def delete_call(self, number: int) -> None:
        calls = self.world.server.all("taskruntoolcalls")
        if calls:
            self.world.delete("taskruntoolcalls", calls[number % len(calls)]["metadata"]["name"])

    @rule(approved=st.booleans(), number=numbers)
    def decide_with_kubectl(self, approved: bool, number: int) -> None:
        """At any moment, also before anybody was asked."""
        calls = self.world.server.all("taskruntoolcalls")
        calls = [call for call in calls if self.world.invariants.may_be_decided(call, approved)]
        if calls:
            name = calls[number % len(calls)]["metadata"]["name"]
            self.world.patch("taskruntoolcalls", name, {"spec": {"decision": {"approved": approved}}})

    @rule()
    def delete_channel(self) -> None:
        if self.world.server.find("contactchannels", CHANNEL):
            self.world.delete("contactchannels", CHANNEL)
        else:
            self.world.apply_channel()

    @rule()
    def delete_server(self) -> None:
        if self.world.server.find("mcpservers", SERVER):
            self.world.delete("mcpservers", SERVER)
        else:
            self.world.apply_server()

    def teardown(self) -> None:
        try:
            self._settle()
        finally:
            self._opened.__exit__(None, None, None)

    def _settle(self) -> None:
        """Everything is repaired, and everybody gets the time that it needs."""
        world = self.world
        if not world.server.find("mcpservers", SERVER):
            world.apply_server()
        if not world.server.find("contactchannels", CHANNEL):
            world.apply_channel()
        for service in LED:
            for process in world.living(service):
                if process.overtaken:  # it hears that it lost the Lease
                    world.crash(process)
        world.patch("llms", "llm", {"status": {"ready": True, "status": "Ready"}}, "status")
        world.settle()
        world.invariants.check_settled()


CrashPoints.TestCase.settings = settings(
    max_examples=EXAMPLES or 15,
    stateful_step_count=STEPS,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink) if EXAMPLES else (Phase.generate,),
)
TestCrashPoints: Any = CrashPoints.TestCase
