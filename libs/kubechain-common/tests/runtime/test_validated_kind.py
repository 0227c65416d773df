from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.api.v1alpha1.status import ReadinessStatus
from kubechain_common.kube.errors import ConflictError, UnavailableError
from kubechain_common.runtime.validated_kind import Trouble, ValidatedKind, Verdict

KEY = ("default", "x")
OK = "the other side is fine"
AWAY = Trouble("away", retryable=True)
REFUSED = Trouble("refused", retryable=False)
MISSING = Verdict("Error", "SecretValidationFailed", "no secret")
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@dataclass(frozen=True)
class FakeSecrets:
    digest: str


class World:
    """One object, its secret, the other side and a clock, all in memory."""

    def __init__(self, greeting: str = "") -> None:
        self.obj: LLM | None = LLM.model_validate(
            {
                "metadata": {"name": "x", "namespace": "default", "uid": "u", "generation": 1},
                "spec": {"provider": "openai"},
            }
        )
        self.prepared: FakeSecrets | Verdict | Exception = FakeSecrets("1")
        self.outcome: str | Trouble = OK
        self.conflict = False
        self.asked = 0
        self.time = 0.0
        self.writes: list[ReadinessStatus] = []
        self.events: list[tuple[str, str, str]] = []
        self.greeting = greeting
        self.restart()

    def restart(self) -> None:
        """A new leader."""
        self.kind = ValidatedKind(self.get, self, self, lambda: NOW, greeting=self.greeting)

    async def reconcile(self) -> float | None:
        result = await self.kind.reconcile(KEY)
        return result.requeue_after if result is not None else None

    def get(self, namespace: str, name: str) -> LLM | None:
        return self.obj if (namespace, name) == KEY else None

    async def prepare(self, obj: LLM) -> FakeSecrets | Verdict:
        if isinstance(self.prepared, Exception):
            raise self.prepared
        return self.prepared

    async def ask(self, obj: LLM, secrets: FakeSecrets) -> str | Trouble:
        self.asked += 1
        return self.outcome

    def retry_delay(self, failures: int, retry_after: float | None) -> float:
        return retry_after or 2.0**failures

    async def write(self, obj: LLM, status: ReadinessStatus) -> None:
        if self.conflict:
            raise ConflictError("somebody else wrote")
        self.writes.append(status)
        self.obj = obj.model_copy(update={"status": status})

    def event(self, obj: Resource, event_type: str, reason: str, message: str) -> None:
        self.events.append((event_type, reason, message))

    def change(self, **metadata: Any) -> None:
        assert self.obj is not None
        self.obj = self.obj.model_copy(update={"metadata": self.obj.metadata.model_copy(update=metadata)})

    @property
    def status(self) -> ReadinessStatus:
        assert self.obj is not None
        return self.obj.status


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr("kubechain_common.runtime.validated_kind._loop_time", lambda: world.time)
    return world


async def test_a_new_object_gets_one_write_and_one_event_and_then_rests(world: World) -> None:
    for _ in range(3):
        assert await world.reconcile() is None
    assert [(s.ready, s.status, s.status_detail, s.observed_generation) for s in world.writes] == [
        (True, "Ready", OK, 1)
    ]
    assert [(c.type, c.status, c.reason) for c in world.status.conditions] == [("Ready", "True", "ValidationSucceeded")]
    assert world.events == [("Normal", "ValidationSucceeded", OK)]
    assert world.asked == 1


async def test_a_new_leader_asks_again_and_says_nothing_new(world: World) -> None:
    await world.reconcile()
    world.restart()
    await world.reconcile()
    assert (len(world.writes), len(world.events), world.asked) == (1, 1, 2)


async def test_an_object_is_greeted_once() -> None:
    world = World(greeting="Hello")
    world.conflict = True
    for _ in range(2):
        with pytest.raises(ConflictError):
            await world.reconcile()
    world.conflict = False
    await world.reconcile()
    world.restart()
    await world.reconcile()
    assert [event[1:] for event in world.events] == [("Initializing", "Hello"), ("ValidationSucceeded", OK)]


async def test_what_is_missing_is_told_without_asking_and_heals(world: World) -> None:
    world.prepared = MISSING
    for _ in range(2):
        assert await world.reconcile() is None
    assert [(s.status, s.status_detail) for s in world.writes] == [("Error", "no secret")]
    assert world.events == [("Warning", "SecretValidationFailed", "no secret")]
    assert world.asked == 0
    for times in (1, 2):
        world.prepared = FakeSecrets("1")
        await world.reconcile()
        assert (world.status.ready, world.asked) == (True, times)
        world.prepared = MISSING
        await world.reconcile()
        assert not world.status.ready


async def test_what_changed_is_asked_about_anew(world: World) -> None:
    await world.reconcile()
    world.prepared = FakeSecrets("2")
    await world.reconcile()
    assert (len(world.writes), world.asked) == (1, 2)
    assert world.events == [("Normal", "ValidationSucceeded", OK)] * 2
    world.change(generation=2)
    await world.reconcile()
    assert (world.asked, world.status.observed_generation) == (3, 2)
    world.change(uid="v")
    await world.reconcile()
    assert world.asked == 4


async def test_a_refusal_is_looked_at_rarely(world: World) -> None:
    world.outcome = REFUSED
    assert await world.reconcile() == 300
    assert world.events == [("Warning", "ValidationFailed", "refused")]
    world.time = 299
    assert await world.reconcile() == 1
    assert world.asked == 1
    world.time, world.outcome = 300, OK
    assert await world.reconcile() is None
    assert world.status.ready


async def test_trouble_is_looked_at_again_with_back_off_but_not_at_once(world: World) -> None:
    world.outcome = AWAY
    for failures, delay in enumerate([2, 4, 8], start=1):
        assert await world.reconcile() == delay
        world.time += 0.5
        assert await world.reconcile() == delay - 0.5
        world.time += delay - 0.5
        assert (world.asked, len(world.writes), len(world.events)) == (failures, 1, 1)
    world.outcome = Trouble("away", retryable=True, retry_after=7)
    assert await world.reconcile() == 7
    world.time += 7
    world.outcome = OK
    assert await world.reconcile() is None
    assert world.status.ready


async def test_the_back_off_begins_anew_with_a_change(world: World) -> None:
    world.outcome = AWAY
    await world.reconcile()
    world.prepared = FakeSecrets("2")
    assert await world.reconcile() == 2


async def test_a_validated_object_stays_ready_while_the_other_side_is_away(world: World) -> None:
    await world.reconcile()
    world.restart()
    world.outcome = AWAY
    assert await world.reconcile() == 2
    assert world.status.ready
    world.restart()
    world.outcome = REFUSED
    await world.reconcile()
    assert not world.status.ready


async def test_an_edited_object_is_not_ready_on_credit(world: World) -> None:
    await world.reconcile()
    world.outcome = AWAY
    world.change(generation=2)
    await world.reconcile()
    assert (world.status.ready, world.status.observed_generation) == (False, 2)


async def test_nothing_is_said_while_the_api_server_is_away(world: World) -> None:
    world.prepared = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await world.reconcile()
    assert (world.writes, world.events) == ([], [])


@pytest.mark.parametrize("gone", [True, False])
async def test_what_is_gone_is_left_alone_and_forgotten(world: World, gone: bool) -> None:
    await world.reconcile()
    there = world.obj
    if gone:
        world.obj = None
    else:
        world.change(deletion_timestamp=NOW)
    assert await world.reconcile() is None
    world.obj = there
    await world.reconcile()
    assert (world.asked, len(world.writes)) == (2, 1)
