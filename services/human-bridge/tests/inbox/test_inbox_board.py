"""What waits, what was answered, who is told, and how calls are described."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientResponse
from inbox_testbed import FakeCalls, FakeKube, Testbed, answered_call, bearer, waiting_call

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.testing.builders import build_task
from kubechain_human_bridge.web.inbox import sessions, stream
from kubechain_human_bridge.web.inbox.board import HISTORY, Board, Follower, News
from kubechain_human_bridge.web.inbox.conversation import MAX_MESSAGES, MAX_TEXT, choose, describe
from kubechain_human_bridge.web.inbox.entries import (
    PREVIEW,
    describe_answer,
    describe_call,
    describe_history,
)
from kubechain_human_bridge.web.inbox.surroundings import Surroundings

API = "/apis/kubechain.humanlayer.dev/v1alpha1/namespaces/default"


def names(board: Board) -> list[str]:
    return [name for _, name in board.waiting()]


def test_a_call_waits_until_it_is_answered_cancelled_or_gone() -> None:
    calls = FakeCalls(waiting_call("a"), waiting_call("b"))
    board = Board(calls)
    assert names(board) == ["a", "b"]
    calls.put(answered_call("a"))
    assert names(board) == ["b"]
    assert [call.name for call in board.answered()] == ["a"]
    calls.put(waiting_call("b", version=2, cancel=True))
    assert names(board) == []
    calls.put(waiting_call("c"))
    calls.delete(waiting_call("c"))
    calls.delete(waiting_call("a"))
    assert (names(board), list(board.answered())) == ([], [])


async def test_followers_hear_of_each_change_once() -> None:
    calls = FakeCalls(waiting_call("known"))
    board = Board(calls)
    with board.follow() as follower:
        calls.put(waiting_call("new"))
        calls.put(waiting_call("new", version=2))
        calls.put(answered_call("new", version=3))
        calls.put(waiting_call("last"))
        heard = [await follower.next() for _ in range(3)]
    assert [(news.kind, news.call.name if news.call else "") for news in heard] == [
        ("arrived", "new"),
        ("left", "new"),
        ("arrived", "last"),
    ]


async def test_who_can_not_keep_up_is_told_to_look_anew() -> None:
    follower = Follower()
    for _ in range(1000):
        follower.tell(News("arrived", waiting_call()))
    assert await follower.next() == News("lost")


def test_history_is_bounded_by_namespace_and_newest_first() -> None:
    calls = FakeCalls()
    board = Board(calls)
    for n in range(3 * HISTORY):
        calls.put(answered_call(f"call-{n:03}", at=f"2026-11-23T{n // 60:02}:{n % 60:02}:00Z"))
    kept = [call.name for call in board.answered()]
    assert HISTORY <= len(kept) <= 2 * HISTORY
    assert kept[0] == f"call-{3 * HISTORY - 1:03}"
    assert kept == sorted(kept, reverse=True)


def test_a_list_holds_beginnings_only() -> None:
    assert len(describe_call(waiting_call(arguments="x" * 9999))["preview"]) == PREVIEW


@pytest.mark.parametrize(("given", "shown"), [(None, None), ("{}", None), ('{"n": 1}', '{"n": 1}')])
def test_arguments_are_shown_as_edited_when_they_differ(given: str | None, shown: str | None) -> None:
    told = describe_answer(answered_call(arguments=given))
    assert told is not None
    assert told["arguments"] == shown


def test_an_answer_without_a_road_came_by_kubectl() -> None:
    told = describe_answer(answered_call(via=None))
    assert told is not None
    assert told["via"] == "kubectl"


def test_history_of_a_call_reads_as_it_happened() -> None:
    assert [step["what"] for step in describe_history(answered_call())] == [
        "The agent asked",
        "Approved by alice (page)",
    ]


def test_a_long_conversation_is_cut_at_its_beginning() -> None:
    window = [Message(role="user", content=str(n)) for n in range(MAX_MESSAGES + 5)]
    kept, omitted = choose(window)
    assert (len(kept), kept[-1].content, omitted) == (MAX_MESSAGES, str(MAX_MESSAGES + 4), True)
    assert choose([Message(role="system"), Message(role="earlier"), Message(role="user", content="x")])[1] is True
    assert choose(window[:3]) == (window[:3], False)
    told = describe([Message(role="tool", content="x" * 2 * MAX_TEXT)], omitted=False)
    assert len(told["messages"][0]["text"]) == MAX_TEXT


async def test_agent_and_deadline_come_from_the_objects_around() -> None:
    kube = FakeKube()
    kube.objects[f"{API}/tasks/hello"] = build_task().to_wire()
    server = {
        "metadata": {"name": "fetch"},
        "spec": {"transport": "stdio", "approvalContactChannel": {"name": "people"}},
    }
    kube.objects[f"{API}/mcpservers/fetch"] = server
    channel = {"metadata": {"name": "people"}, "spec": {"type": "inbox", "timeoutSeconds": 60, "onTimeout": "Approve"}}
    kube.objects[f"{API}/contactchannels/people"] = channel
    surroundings = Surroundings(kube)
    told = await surroundings.describe(waiting_call())
    assert (told["agent"], told["channel"]) == ("my-assistant", "people")
    assert (told["deadline"], told["then"]) == ("2026-11-23T12:01:00Z", "approved")
    question = waiting_call(toolType="HumanContact", target={"name": "people"})
    assert (await surroundings.describe(question))["then"] == "fails"
    assert len(kube.asked) == 3  # each was read once


async def test_what_can_not_be_read_is_left_out() -> None:
    told = await Surroundings(FakeKube()).describe(waiting_call())
    assert (told["agent"], told["channel"], told["deadline"]) == ("", "", None)


# --- the stream ---


async def read_event(response: ClientResponse) -> tuple[str, dict[str, Any]]:
    """The next event, heartbeats and the time of retries left out."""
    async with asyncio.timeout(5):
        while True:
            block = (await response.content.readuntil(b"\n\n")).decode()
            if block.startswith((":", "retry:")):
                continue
            kind, data = block.strip().split("\n")
            return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_changes_are_streamed_to_who_may_see_them() -> None:
    bed = Testbed()
    async with bed.serve() as client, client.get("/api/v1/events", headers=bearer()) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert (await read_event(response))[0] == "hello"
        bed.calls.put(waiting_call("secret", namespace="foreign"))
        bed.calls.put(waiting_call("mine"))
        kind, data = await read_event(response)
        assert (kind, data["name"], data["namespace"]) == ("arrived", "mine", "default")
        bed.calls.put(answered_call("mine", approved=False, comment="no"))
        kind, data = await read_event(response)
        assert (kind, data["answer"]["approved"], data["answer"]["comment"]) == ("left", False, "no")


async def test_when_a_right_can_not_be_reviewed_the_page_looks_anew() -> None:
    bed = Testbed()
    async with bed.serve() as client, client.get("/api/v1/events", headers=bearer()) as response:
        await read_event(response)
        bed.kube.away = True
        bed.calls.put(waiting_call("mine"))
        assert (await read_event(response))[0] == "hello"


async def test_a_silent_stream_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.01)
    async with Testbed().serve() as client, client.get("/api/v1/events", headers=bearer()) as response:
        await read_event(response)
        async with asyncio.timeout(5):
            assert await response.content.readuntil(b"\n\n") == b": still here\n\n"


async def test_a_stream_ends_with_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LIFETIME", timedelta(seconds=0.2))
    async with Testbed().serve() as client, client.get("/api/v1/events", headers=bearer()) as response:
        assert (await read_event(response))[0] == "hello"
        assert (await read_event(response))[0] == "expired"
        assert await response.content.read() == b""


async def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS_OF_USER", 1)
    async with Testbed().serve() as client, client.get("/api/v1/events", headers=bearer()) as first:
        await read_event(first)
        assert (await client.get("/api/v1/events", headers=bearer())).status == 503
        async with client.get("/api/v1/events", headers=bearer("viewer")) as other:
            assert other.status == 200


async def test_a_page_that_was_closed_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS_OF_USER", 1)
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.01)
    async with Testbed().serve() as client, asyncio.timeout(5):
        async with client.get("/api/v1/events", headers=bearer()) as first:
            await read_event(first)
        status = 503
        while status == 503:
            async with client.get("/api/v1/events", headers=bearer()) as again:
                status = again.status
    assert status == 200
