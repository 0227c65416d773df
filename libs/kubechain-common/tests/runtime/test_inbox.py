"""A result waits in the inbox until it is in its object."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from kubechain_common.kube.informer import Key
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.messaging.consumer import Delivery
from kubechain_common.runtime.inbox import Inbox

REF = ObjectRef(namespace="default", name="hello", uid="u1")


class Arrival:
    """As much of a Delivery as the inbox looks at."""

    def __init__(self, turn: int, ref: ObjectRef = REF) -> None:
        self.message = LLMResult(task=ref, turn=turn, outcome="Message")


def inbox_and_queue(known: dict[str, Key] | None = None) -> tuple[Inbox[LLMResult], list[Key]]:
    """``known`` are the keys of objects by uid."""
    woken: list[Key] = []
    known = known or {}

    def enqueue(ref: ObjectRef) -> Key | None:
        woken.append(ref.key)
        return ref.key if ref.name else known.get(ref.uid)

    return Inbox(lambda result: result.task, enqueue), woken


def delivery(turn: int, ref: ObjectRef = REF) -> Delivery[LLMResult]:
    return cast("Delivery[Any]", Arrival(turn, ref))


async def test_a_result_wakes_its_object_and_is_held_until_it_is_settled() -> None:
    inbox, woken = inbox_and_queue()
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(inbox.handle(delivery(1)))
        await asyncio.sleep(0)
        parked = inbox.first("u1")
        assert parked is not None
        assert woken == [("default", "hello")]
        assert not handling.done()
        assert inbox.settle("u1", parked) is False
    assert inbox.first("u1") is None


async def test_a_result_for_nobody_is_settled_at_once() -> None:
    inbox, _ = inbox_and_queue()
    await inbox.handle(delivery(1, ObjectRef(namespace="default", name="", uid="u9")))
    assert inbox.first("u9") is None


async def test_results_are_taken_in_the_order_of_arrival() -> None:
    inbox, _ = inbox_and_queue()
    async with asyncio.TaskGroup() as group:
        for turn in (1, 2):
            group.create_task(inbox.handle(delivery(turn)))
        await asyncio.sleep(0)
        first = inbox.first("u1")
        assert first is not None
        assert first.message.turn == 1
        assert inbox.settle("u1", first) is True
        second = inbox.first("u1")
        assert second is not None
        assert second.message.turn == 2
        inbox.settle("u1", second)


async def test_a_cancelled_handler_takes_its_result_back() -> None:
    inbox, _ = inbox_and_queue()
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(inbox.handle(delivery(1)))
        await asyncio.sleep(0)
        handling.cancel()
    assert inbox.first("u1") is None


@pytest.mark.parametrize("live", [None, "u2"])
async def test_what_waits_for_an_object_that_is_gone_is_settled(live: str | None) -> None:
    inbox, _ = inbox_and_queue()
    async with asyncio.TaskGroup() as group:
        group.create_task(inbox.handle(delivery(1)))
        await asyncio.sleep(0)
        inbox.settle_orphans(("default", "hello"), live)
    assert inbox.first("u1") is None


async def test_what_waits_without_the_name_of_its_object_goes_with_it_too() -> None:
    """In place of a result that can not be read; who owns it is known by its uid alone."""
    inbox, _ = inbox_and_queue({"u1": ("default", "hello")})
    async with asyncio.TaskGroup() as group:
        group.create_task(inbox.handle(delivery(1, ObjectRef(namespace="default", name="", uid="u1"))))
        await asyncio.sleep(0)
        assert inbox.first("u1") is not None
        inbox.settle_orphans(("default", "hello"), None)
    assert inbox.first("u1") is None
