"""Several replicas with one shared bucket: who may call, who waits, who probes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_common.messages.topology import llm_health_key
from kubechain_common.messaging.errors import RetryLater
from kubechain_common.runtime.clock import epoch
from kubechain_common.testing.entries import InMemoryEntries
from kubechain_llm_gateway.admission import admission as admission_module
from kubechain_llm_gateway.admission import circuit as circuit_module
from kubechain_llm_gateway.admission.admission import Admission, Prepared
from kubechain_llm_gateway.admission.circuit import TRIP_AFTER, Block, Circuit, Obstacle, pause, recover, trip
from kubechain_llm_gateway.admission.gate import Gate
from kubechain_llm_gateway.admission.health_board import HealthBoard
from kubechain_llm_gateway.admission.metering import Meter, Reservation
from kubechain_llm_gateway.admission.probing import Prober
from kubechain_llm_gateway.admission.rate_limiter import RateLimiter
from kubechain_llm_gateway.llms.access import LLMAccess
from kubechain_llm_gateway.providers.base import Completion, OnDelta, Validation
from kubechain_llm_gateway.providers.errors import (
    KeyRefusedError,
    ProviderError,
    TransientProviderError,
    UnreachableProviderError,
)

BuildLLM = Callable[..., LLM]
DEAD = UnreachableProviderError("Connection refused")


@dataclass(frozen=True)
class Answer:
    waited: float
    usage: TokenUsage


class Replica:
    """One gateway's part; its provider fails with ``world.error``, and otherwise answers when it is let."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stopping = asyncio.Event()
        self.board = HealthBoard(world.entries)
        meter = Meter(RateLimiter(world.entries, epoch), world.find, epoch, self.stopping)
        self.admission = Admission(self.board, meter, world.find, self.stopping)
        self.prober = Prober(self.board, world.find, LLMAccess(world, world, world))
        self.told: list[str] = []

    async def call(self, llm: LLM | None = None) -> float:
        """Seconds that it waited."""

        async def tell(reason: str) -> None:
            self.told.append(reason)

        llm = llm or self.world.llm

        async def prepare(waited: float) -> Prepared[Answer]:
            self.world.preparing += 1
            try:
                await self.world.prepared.wait()
            finally:
                self.world.preparing -= 1
            return Prepared(self.world.llm, lambda: self._answer(waited))

        return (await self.admission.run(llm, lambda: 400, tell, prepare)).waited

    async def _answer(self, waited: float) -> Answer:
        self.world.calls += 1
        self.world.open += 1
        try:
            await self.world.answering.wait()
            if self.world.error is not None:
                raise self.world.error
        finally:
            self.world.open -= 1
        return Answer(waited, TokenUsage(input_tokens=100, output_tokens=20))

    async def fail(self) -> None:
        with pytest.raises(ProviderError):
            await self.call()

    @property
    def circuit(self) -> Circuit:
        return self.board.get(self.world.llm.uid).circuit


class World:
    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.entries = InMemoryEntries()
        self.error: Exception | None = None
        self.answering = asyncio.Event()
        self.answering.set()
        self.prepared = asyncio.Event()
        self.prepared.set()
        self.preparing = 0
        self.gone = False
        self.calls = 0
        self.open = 0
        self.probes = 0
        self.replicas = [Replica(self) for _ in range(3)]

    def find(self, uid: str) -> LLM | None:
        return self.llm if self.llm.uid == uid and not self.gone else None

    def get(self, namespace: str, name: str) -> LLM:
        return self.llm

    async def read(self, namespace: str, name: str) -> dict[str, str]:
        return {"OPENAI_API_KEY": "sk-1"}

    async def build(self, spec: LLMSpec, api_key: str | None) -> World:
        return self

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        on_delta: OnDelta | None,
        response_format: ResponseFormat | None,
    ) -> Completion:
        raise AssertionError("a probe must not pay for a completion")

    async def validate(self) -> Validation:
        self.probes += 1
        if self.error is not None:
            raise self.error
        return Validation("fine")

    @asynccontextmanager
    async def running(self, *, probers: bool = False) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(replica.board.run()) for replica in self.replicas]
            if probers:
                tasks += [group.create_task(replica.prober.run()) for replica in self.replicas]
            await asyncio.sleep(0)
            yield
            for task in tasks:
                task.cancel()


@pytest.fixture
def world(build_llm: BuildLLM) -> World:
    return World(build_llm())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "PATIENCE", 0.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the fakes have no event to wait for
            await asyncio.sleep(0.001)


async def test_a_call_that_nothing_holds_back_costs_no_round_trip(world: World) -> None:
    assert await world.replicas[0].call() == 0.0
    assert (world.entries.reads, world.entries.writes) == (0, 0)


async def test_failures_in_a_row_open_the_circuit_for_all_replicas(world: World) -> None:
    async with world.running():
        world.error = DEAD
        for _ in range(TRIP_AFTER):
            assert world.replicas[0].circuit is Circuit.CLOSED
            await world.replicas[0].fail()
        await until(lambda: all(replica.circuit is Circuit.OPEN for replica in world.replicas))
        assert world.entries.writes == 1


@pytest.mark.parametrize("answer", [None, KeyRefusedError("no", status_code=401)])
async def test_a_provider_that_answers_between_its_failures_is_not_dead(
    world: World, answer: ProviderError | None
) -> None:
    replica = world.replicas[0]
    for _ in range(3):
        world.error = DEAD
        for _ in range(TRIP_AFTER - 1):
            await replica.fail()
        world.error = answer
        if answer is None:
            await replica.call()
        else:
            await replica.fail()
    assert replica.circuit is Circuit.CLOSED


async def test_calls_that_fail_together_open_it_once(world: World) -> None:
    async with world.running():
        world.error = DEAD
        replica = world.replicas[0]
        world.answering.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(replica.fail())
            await until(lambda: world.open == 20)
            world.answering.set()
        assert replica.circuit is Circuit.OPEN
        assert world.entries.writes == 1


async def test_who_waits_is_told_and_goes_when_the_provider_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_module, "FIRST_PROBE", 0.02)
    async with world.running(probers=True):
        world.error = DEAD
        for _ in range(TRIP_AFTER):
            await world.replicas[0].fail()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(replica.call()) for replica in world.replicas for _ in range(3)]
            await until(lambda: world.probes >= 3)
            assert world.calls == TRIP_AFTER, "nobody calls but who probes"
            world.error = None
        assert all(task.result() > 0 for task in waiting)
        assert all("its provider is unavailable (Connection refused)" in replica.told[0] for replica in world.replicas)
        await until(lambda: all(replica.circuit is Circuit.CLOSED for replica in world.replicas))


async def test_one_replica_probes_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_module, "FIRST_PROBE", 0.05)
    async with world.running(probers=True):
        world.error = DEAD
        at = epoch()
        await world.replicas[0].board.change(world.llm.uid, lambda health: trip(health, 1, "no", at, at))
        await until(lambda: world.probes == 3)  # after 0.05, 0.15 and 0.35 s
        assert 0.3 < epoch() - at < 0.75


async def test_an_error_that_nobody_thought_of_ends_a_probe_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_module, "FIRST_PROBE", 0.02)
    async with world.running(probers=True):
        world.error = RuntimeError("a mistake")
        at = epoch()
        await world.replicas[0].board.change(world.llm.uid, lambda health: trip(health, 1, "no", at, at))
        await until(lambda: world.probes >= 2)
        world.error = None
        await until(lambda: world.replicas[0].circuit is not Circuit.OPEN)


async def test_a_trial_lets_one_call_out_and_its_failure_ends_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_module, "FIRST_PROBE", 0.02)
    replica = world.replicas[0]
    async with world.running(probers=True):
        world.error = DEAD
        for _ in range(TRIP_AFTER):
            await replica.fail()
        world.error = None
        world.answering.clear()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(_outcome(replica.call())) for _ in range(3)]
            await until(lambda: world.open == 1)
            assert world.calls == TRIP_AFTER + 1
            world.error = None
            monkeypatch.setattr(circuit_module, "FIRST_PROBE", 60.0)
            at = epoch()
            await replica.board.change(world.llm.uid, lambda health: trip(health, 1, "again", at, at))
            world.answering.set()
            await asyncio.gather(*waiting)
        assert world.calls == TRIP_AFTER + 3, "the answer to the first closed it"


async def test_a_retry_after_holds_all_replicas(world: World) -> None:
    async with world.running():
        world.error = TransientProviderError("Rate limit reached.", status_code=429, retry_after=0.8)
        began = asyncio.get_running_loop().time()
        await world.replicas[0].fail()
        world.error = None
        await until(lambda: all(r.admission.find_block(world.llm) is not None for r in world.replicas))
        block = world.replicas[2].admission.find_block(world.llm)
        assert block is not None
        assert block.obstacle is Obstacle.PAUSED
        waited = await asyncio.gather(*(replica.call() for replica in world.replicas))
        assert asyncio.get_running_loop().time() - began >= 0.79
        assert all(waited)
        assert "asks to be left alone until" in world.replicas[1].told[0]


async def test_a_pause_counts_here_before_it_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, write, written = world.replicas[0], world.entries.write, asyncio.Event()

    async def write_late(key: str, data: bytes, revision: int) -> int | None:
        await written.wait()
        return await write(key, data, revision)

    monkeypatch.setattr(world.entries, "write", write_late)
    async with world.running(), asyncio.TaskGroup() as group:
        change = group.create_task(
            replica.board.change(world.llm.uid, lambda health: pause(health, 1, 60.0, "Rate limit reached.", epoch()))
        )
        await until(lambda: replica.admission.find_block(world.llm) is not None)
        await world.entries.tell(llm_health_key(world.llm.uid))
        await until(lambda: world.entries.reads == 2)  # by the other two
        assert not world.entries.entries
        assert replica.admission.find_block(world.llm) is not None, "what was read is older"
        written.set()
    assert change.result()
    assert replica.admission.find_block(world.llm) is not None


async def test_a_pause_that_begins_while_a_call_is_prepared_holds_it_too(world: World) -> None:
    replica = world.replicas[0]
    world.prepared.clear()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(replica.call()) for _ in range(3)]
        await until(lambda: world.preparing == 3)
        at = epoch()
        await replica.board.change(world.llm.uid, lambda health: pause(health, 1, 0.6, "Rate limit reached.", at))
        world.prepared.set()
        await until(lambda: world.calls >= 1)
        assert epoch() - at >= 0.6
    assert all(task.result() > 0 for task in calls)
    assert world.calls == 3


async def test_after_a_pause_calls_start_one_by_one(world: World) -> None:
    replica = world.replicas[0]
    world.error = TransientProviderError("Rate limit reached.", status_code=429, retry_after=0.6)
    await replica.fail()
    world.error = None
    world.answering.clear()
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(replica.call())
        await until(lambda: world.open == 1)
        assert world.calls == 2
        world.answering.set()
    assert world.calls == 9


async def test_too_many_calls_become_fewer_where_nobody_says_for_how_long(world: World) -> None:
    replica = world.replicas[0]
    world.answering.clear()
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(_outcome(replica.call())) for _ in range(9)]
        await until(lambda: world.open == 9)
        refused = TransientProviderError("Rate limit reached.", status_code=429)
        gate = replica.admission._gate_of(world.llm)
        await replica.admission._pace(world.llm, gate, refused)  # one more that was refused
        second = [group.create_task(_outcome(replica.call())) for _ in range(9)]
        await until(lambda: not any(task.done() for task in second))
        assert world.open == 9, "more than four are under way already"
        world.answering.set()
        await asyncio.gather(*first, *second)
    assert world.calls == 18


async def test_the_end_of_the_process_leaves_the_call_to_another(world: World) -> None:
    replica = world.replicas[0]
    at = epoch()
    await replica.board.change(world.llm.uid, lambda health: trip(health, 1, "no", at, at))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_outcome(replica.call()))
        await until(lambda: bool(replica.told))
        replica.stopping.set()
    assert isinstance(waiting.result(), RetryLater)
    assert world.calls == 0


async def test_a_call_that_is_given_up_makes_room(world: World) -> None:
    replica = world.replicas[0]
    world.error = TransientProviderError("busy", status_code=429, retry_after=0.6)
    await replica.fail()
    world.error = None
    world.answering.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(_outcome(replica.call()))
        second = group.create_task(_outcome(replica.call()))
        third = group.create_task(_outcome(replica.call()))
        await until(lambda: world.open == 1)
        second.cancel()
        first.cancel()
        await until(lambda: world.calls == 3)
        world.answering.set()
    assert third.result() is None


async def test_an_edited_llm_is_called_at_once(world: World, build_llm: BuildLLM) -> None:
    replica = world.replicas[0]
    at = epoch()
    await replica.board.change(world.llm.uid, lambda health: trip(health, 1, "no", at, at))
    async with asyncio.TaskGroup() as group:
        group.create_task(replica.call())
        await until(lambda: bool(replica.told))
        world.llm = build_llm(metadata={"generation": 2})
        replica.admission.handle_change(world.llm)
    assert world.calls == 1


async def test_a_call_that_waits_goes_by_the_llm_as_it_was_edited(world: World, build_llm: BuildLLM) -> None:
    replica, at = world.replicas[0], epoch()
    await replica.board.change(world.llm.uid, lambda health: trip(health, 1, "no", at, at))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_outcome(replica.call()))
        await until(lambda: bool(replica.told))
        world.llm = build_llm(metadata={"generation": 2})
        await replica.board.change(world.llm.uid, lambda health: pause(health, 2, 60.0, "busy", at))
        await until(lambda: "asks to be left alone" in replica.told[-1])
        replica.stopping.set()
    assert isinstance(waiting.result(), RetryLater)
    assert world.calls == 0


@pytest.mark.parametrize("late", [DEAD, TransientProviderError("busy", status_code=429, retry_after=1.0), None])
async def test_what_became_of_an_older_call_says_nothing_about_an_edited_llm(
    world: World, build_llm: BuildLLM, late: ProviderError | None
) -> None:
    replica, at = world.replicas[0], epoch()
    world.answering.clear()
    async with asyncio.TaskGroup() as group:
        for _ in range(TRIP_AFTER):
            group.create_task(_outcome(replica.call()))
        await until(lambda: world.open == TRIP_AFTER)
        world.llm = build_llm(metadata={"generation": 2})
        await replica.board.change(world.llm.uid, lambda health: trip(health, 2, "no", at, at))
        known = replica.board.get(world.llm.uid)
        world.error = late
        world.answering.set()
    assert replica.board.get(world.llm.uid) == known


async def test_an_edited_llm_begins_without_failures(world: World, build_llm: BuildLLM) -> None:
    replica = world.replicas[0]
    world.error = DEAD
    for _ in range(TRIP_AFTER - 1):
        await replica.fail()
    world.llm = build_llm(metadata={"generation": 2})
    await replica.fail()
    assert replica.circuit is Circuit.CLOSED


async def test_a_call_of_an_llm_that_is_gone_is_held_by_nothing(world: World, build_llm: BuildLLM) -> None:
    """Who prepares it finds out that it is gone. The gate was made by an earlier generation."""
    replica, at = world.replicas[0], epoch()
    await replica.call()
    world.llm = build_llm(metadata={"generation": 2})
    await replica.board.change(world.llm.uid, lambda health: pause(health, 2, 60.0, "busy", at))
    world.gone = True
    async with asyncio.timeout(10):
        await replica.call()
    assert replica.admission._gates == {}


async def test_who_waits_for_an_llm_that_is_there_again_is_let_go(world: World) -> None:
    """After etcd was restored, all LLMs are gone and there again in one moment, and nobody lost their place."""
    replica, at = world.replicas[0], epoch()
    await replica.board.change(world.llm.uid, lambda health: trip(health, 1, "no", at, at))
    world.answering.clear()
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(replica.call())
        await until(lambda: len(replica.told) == 2)
        world.gone = True
        replica.admission.forget(world.llm)
        world.gone = False
        await until(lambda: world.open == 1)
        await replica.board.change(world.llm.uid, lambda health: trip(health, 1, "again", at, at))
        world.answering.set()
        await until(lambda: world.open == 0)
        await replica.board.change(world.llm.uid, lambda health: recover(health, epoch()))
        await until(lambda: world.calls == 2)


async def test_a_change_that_was_given_up_while_it_was_written_is_looked_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, writing = world.replicas[0], asyncio.Event()

    async def write(key: str, data: bytes, revision: int) -> int | None:
        writing.set()
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(world.entries, "write", write)
    async with world.running(), asyncio.TaskGroup() as group:
        change = group.create_task(
            replica.board.change(world.llm.uid, lambda health: pause(health, 1, 60.0, "busy", epoch()))
        )
        await writing.wait()
        change.cancel()
        await until(lambda: replica.admission.find_block(world.llm) is None)


async def test_a_call_that_has_had_its_turn_comes_first() -> None:
    blocked = True
    gate = Gate(lambda: Block(Obstacle.UNAVAILABLE, "") if blocked else None, epoch)
    other, again = gate.queue(), gate.queue(first=True)
    blocked = False
    gate.look()
    assert (again.going.is_set(), other.going.is_set()) == (True, False), "one by one"


async def test_without_the_bus_a_replica_goes_by_what_it_found_out(world: World) -> None:
    world.entries.away = True
    replica = world.replicas[0]
    world.error = DEAD
    for _ in range(TRIP_AFTER):
        await replica.fail()
    assert world.replicas[0].admission.find_block(world.llm) is not None
    world.error = None
    await replica.board.change(world.llm.uid, lambda health: circuit_module.answer_probe(health, epoch()))
    await replica.call()
    assert replica.circuit is Circuit.CLOSED


async def test_when_the_entries_are_lost_all_starts_anew(world: World) -> None:
    async with world.running():
        at = epoch()
        await world.replicas[0].board.change(world.llm.uid, lambda health: trip(health, 1, "no", at, at))
        async with asyncio.TaskGroup() as group:
            group.create_task(world.replicas[0].call())
            await until(lambda: bool(world.replicas[0].told))
            world.entries.lose_storage()
            for replica in world.replicas:
                replica.board.look_at_all()
        assert all(replica.circuit is Circuit.CLOSED for replica in world.replicas)
        assert world.calls == 1


async def test_a_replica_that_starts_later_knows_what_the_others_do(world: World) -> None:
    at = epoch()
    await world.replicas[0].board.change(world.llm.uid, lambda health: trip(health, 1, "no", at, at))
    async with world.running():
        await until(lambda: world.replicas[2].circuit is Circuit.OPEN)


async def _outcome(work: object) -> Exception | None:
    try:
        await work  # type: ignore[misc]
    except Exception as error:
        return error
    return None


async def test_a_call_that_is_given_up_while_it_waits_for_the_rate_makes_room(
    world: World, build_llm: BuildLLM
) -> None:
    """Else a provider that asks for a pause later would let nobody in again."""
    world.llm = build_llm(rateLimit={"requestsPerMinute": 1})
    replica = world.replicas[0]
    await replica.call()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_outcome(replica.call()))
        await until(lambda: bool(replica.told))
        waiting.cancel()
    assert replica.admission._gate_of(world.llm).under_way == 0


class Turnstile:
    """A meter by which a call may start when the test says so."""

    def __init__(self) -> None:
        self.turn = asyncio.Event()
        self.waits = 0

    async def wait(self, *_: object) -> Reservation:
        self.waits += 1
        await self.turn.wait()
        return Reservation(waited=1.0)

    async def book(self, *_: object) -> None: ...


async def test_a_call_whose_provider_went_while_it_waited_for_the_rate_is_not_made(world: World) -> None:
    replica, meter = world.replicas[0], Turnstile()
    replica.admission._meter = meter  # type: ignore[assignment]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_outcome(replica.call()))
        await until(lambda: meter.waits == 1)
        at = epoch()
        await replica.board.change(world.llm.uid, lambda health: trip(health, 1, "no", at, at))
        meter.turn.set()
        await until(lambda: waiting.done() or bool(replica.told))
        replica.stopping.set()
    assert isinstance(waiting.result(), RetryLater)
    assert world.calls == 0


async def test_a_trial_that_fails_ends_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = world.replicas[0]
    at = epoch()
    await replica.board.change(world.llm.uid, lambda health: trip(health, 1, "no", at, at))
    await replica.board.change(world.llm.uid, lambda health: circuit_module.answer_probe(health, epoch()))
    circuits = [replica.circuit]
    world.error = DEAD
    await replica.fail()
    assert [*circuits, replica.circuit] == [Circuit.TRIAL, Circuit.OPEN]
