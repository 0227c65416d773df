from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from kubechain_common.messages.topology import ConsumerSpec, answer_check_consumer, human_consumer
from kubechain_common.runtime.consumer_cleanup import ConsumerCleanup
from kubechain_common.runtime.consumer_set import Consume, ConsumerSet


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the fakes have no event to wait for
            await asyncio.sleep(0.001)


def consume_into(log: list[str]) -> Consume:
    async def consume(uid: str, stopping: asyncio.Event) -> None:
        log.append(f"start {uid}")
        await stopping.wait()
        log.append(f"drained {uid}")

    return consume


async def test_consumers_come_and_go_with_their_objects() -> None:
    log: list[str] = []
    wanted = {"a"}
    stopping = asyncio.Event()
    consumers = ConsumerSet(lambda: wanted, consume_into(log))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(consumers.run(stopping))
        await until(lambda: log == ["start a"])
        wanted.add("b")
        consumers.notify_changed()
        await until(lambda: "start b" in log)
        wanted.remove("a")
        consumers.notify_changed()
        await until(lambda: "drained a" in log)
        consumers.notify_changed()
        await asyncio.sleep(0)
        assert not running.done()
        stopping.set()
    assert log == ["start a", "start b", "drained a", "drained b"]


async def test_an_object_that_comes_back_gets_a_new_consumer() -> None:
    log: list[str] = []
    wanted = {"a"}
    stopping = asyncio.Event()
    consumers = ConsumerSet(lambda: wanted, consume_into(log))
    async with asyncio.TaskGroup() as group:
        group.create_task(consumers.run(stopping))
        for count in (1, 2):
            wanted.add("a")
            consumers.notify_changed()
            await until(lambda count=count: log.count("start a") == count)  # type: ignore[misc]
            wanted.clear()
            consumers.notify_changed()
            await until(lambda count=count: log.count("drained a") == count)  # type: ignore[misc]
        stopping.set()


class FakeBus:
    def __init__(self) -> None:
        self.done: list[tuple[str, str, str]] = []
        self.failures = 0

    async def delete_consumer(self, stream: str, durable: str) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("down")
        self.done.append(("delete", stream, durable))

    async def purge(self, stream: str, subject: str) -> None:
        self.done.append(("purge", stream, subject))


CLEANED = [
    ("delete", "KUBECHAIN_HUMAN_REQUESTS", "human-u1"),
    ("purge", "KUBECHAIN_HUMAN_REQUESTS", "kubechain.human.request.u1.>"),
    ("delete", "KUBECHAIN_ANSWER_CHECKS", "answers-u1"),
    ("purge", "KUBECHAIN_ANSWER_CHECKS", "kubechain.answer.check.u1.>"),
]


def consumers_of(uid: str) -> list[ConsumerSpec]:
    return [human_consumer(uid), answer_check_consumer(uid)]


@asynccontextmanager
async def leading(cleanup: ConsumerCleanup) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(cleanup.lead())
        yield
        task.cancel()


@pytest.mark.parametrize("failures", [0, 2])
async def test_the_leader_removes_what_a_deleted_object_left(failures: int) -> None:
    bus = FakeBus()
    bus.failures = failures
    cleanup = ConsumerCleanup(bus, consumers_of, lambda uid: False, grace=0.0)
    async with leading(cleanup):
        await asyncio.sleep(0)
        cleanup.note_deleted("default", "u1")
        await until(lambda: bus.done == CLEANED)


async def test_what_was_deleted_without_a_leader_is_removed_by_the_next_one() -> None:
    bus = FakeBus()
    cleanup = ConsumerCleanup(bus, consumers_of, lambda uid: False, grace=0.0)
    cleanup.note_deleted("default", "u1")
    async with leading(cleanup):
        await until(lambda: bus.done == CLEANED)
    bus.done.clear()
    async with leading(cleanup):
        cleanup.note_deleted("default", "u2")
        await until(lambda: len(bus.done) == 4)
    assert bus.done[0] == ("delete", "KUBECHAIN_HUMAN_REQUESTS", "human-u2")


async def test_an_object_that_exists_keeps_its_consumer() -> None:
    bus = FakeBus()
    asked: list[str] = []

    def exists(uid: str) -> bool:
        asked.append(uid)
        return True

    cleanup = ConsumerCleanup(bus, consumers_of, exists, grace=0.0)
    cleanup.note_deleted("default", "u1")
    async with leading(cleanup):
        await until(lambda: bool(asked))
    assert bus.done == []
