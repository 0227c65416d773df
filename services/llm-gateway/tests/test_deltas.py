"""What is told of a call, to whom, and that nothing is told without listeners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.messages import LISTENING_SECONDS, Envelope, LLMDelta, LLMListening, LLMRequest, ObjectRef
from kubechain_common.messages.topology import llm_delta_subject, llm_listening_subject
from kubechain_common.messaging import codec
from kubechain_llm_gateway.calls.deltas import MAX_TEXT, DeltaFeed

TASK = ObjectRef(namespace="default", name="hello", uid="task-uid")
REQUEST = LLMRequest(task=TASK, turn=2, llm=TASK, messages=[Message(role="user", content="hi")])


class World:
    """Somebody to tell, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[tuple[str, LLMDelta]] = []
        self.heard = asyncio.Event()
        self.feed = DeltaFeed(self, lambda: self.now)

    async def tell(self, subject: str, message: Envelope) -> None:
        assert isinstance(message, LLMDelta)
        codec.encode(message)
        self.told.append((subject, message))
        self.heard.set()

    def listen(self, uid: str = "task-uid", *, fresh: bool = True) -> None:
        subject = llm_listening_subject("default", uid)
        self.feed.handle_listening(subject, codec.encode(LLMListening(fresh=fresh)))

    async def until_told(self) -> list[tuple[int, str]]:
        """What is told next, as (offset, text)."""
        async with asyncio.timeout(5):
            await self.heard.wait()
        self.heard.clear()
        told, self.told = self.told, []
        assert {subject for subject, _ in told} == {llm_delta_subject("default", "task-uid")}
        return [(delta.offset, delta.text) for _, delta in told]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.feed.run())
        yield world
        running.cancel()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_nothing_is_told_of_a_task_that_nobody_listens_to(world: World) -> None:
    world.listen("another")
    with world.feed.open(REQUEST, 1) as draft:
        draft("hello")
    await settle()
    assert world.told == []


async def test_pieces_that_come_together_are_told_together(world: World) -> None:
    world.listen()
    with world.feed.open(REQUEST, 3) as draft:
        for piece in ("hel", "", "lo"):
            draft(piece)
        assert await world.until_told() == [(0, "hello")]
        draft(" you")
        assert await world.until_told() == [(5, " you")]


async def test_a_delta_says_of_which_call_it_is(world: World) -> None:
    world.listen()
    calls = []
    for _ in range(2):
        with world.feed.open(REQUEST, 3) as draft:
            draft("a")
        async with asyncio.timeout(5):
            await world.heard.wait()
        world.heard.clear()
        _, delta = world.told.pop()
        assert (delta.turn, delta.attempt) == (2, 3)
        calls.append(delta.call)
    assert calls == sorted(set(calls))


async def test_who_comes_late_is_told_what_was_written_before(world: World) -> None:
    with world.feed.open(REQUEST, 1) as draft:
        draft("hello")
        world.listen()
        assert await world.until_told() == [(0, "hello")]
        draft(" you")
        world.listen(fresh=False)
        assert await world.until_told() == [(5, " you")]
        world.listen()
        assert await world.until_told() == [(0, "hello you")]


async def test_a_gateway_that_forgot_the_listener_begins_at_the_beginning(world: World) -> None:
    with world.feed.open(REQUEST, 1) as draft:
        draft("hello")
        world.listen(fresh=False)
        assert await world.until_told() == [(0, "hello")]


async def test_who_says_no_more_that_he_listens_is_told_no_more(world: World) -> None:
    world.listen()
    world.now = LISTENING_SECONDS + 1
    with world.feed.open(REQUEST, 1) as draft:
        draft("hello")
    await settle()
    assert world.told == []


async def test_a_long_text_comes_in_messages_that_pass_and_half_characters_do_no_harm(world: World) -> None:
    text = "x" * MAX_TEXT + "y" + "\ud83d"
    with world.feed.open(REQUEST, 1) as draft:
        draft(text)
        world.listen()
        told = await world.until_told()
    assert [(offset, len(piece)) for offset, piece in told] == [(0, MAX_TEXT), (MAX_TEXT, 2)]
    assert told[1][1] == "y?"


async def test_what_is_no_word_of_a_listener_does_no_harm(world: World) -> None:
    for subject, data in (("kubechain.llm.listening", b""), (llm_listening_subject("default", "task-uid"), b"\xff")):
        world.feed.handle_listening(subject, data)
    with world.feed.open(REQUEST, 1) as draft:
        draft("hello")
        assert await world.until_told() == [(0, "hello")]
