"""NATS users against a real nats-server with the configuration of a deployment: each service can do its own work under
its own user, and nothing of another's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kubechain_common.messages import Envelope, LLMListening
from kubechain_common.messages.nats_config import build_passwords_config, build_users_config
from kubechain_common.messages.peers import Alive, HandOver, HandOverNews
from kubechain_common.messages.permissions import (
    USERS,
    build_publish_rights,
    build_subscribe_rights,
    inbox_prefix,
)
from kubechain_common.messages.topology import (
    ALL_STREAMS,
    ANY,
    REPLICA_ALIVE,
    STREAMS,
    ConsumerSpec,
    StreamSpec,
    handover_subject,
    llm_delta_subject,
    llm_listening_subject,
    session_key,
    task_ended_subject,
)
from kubechain_common.messaging import Bus, Consumer, MessagingError
from kubechain_common.messaging.access import BusAccess
from kubechain_common.messaging.backlog import Backlog, read_backlog
from kubechain_common.messaging.client import Client
from kubechain_common.messaging.peers import Answer, News
from kubechain_common.testing.nats_server import NatsServer, run_nats_server

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]

SMALL_PAYLOADS = "max_payload: 16384"


class Word(Envelope):
    """Any message."""

    text: str = ""


@dataclass(frozen=True)
class Broker:
    """A server that asks for passwords, and the files with them."""

    server: NatsServer
    passwords: Path

    def access(self, user: str) -> BusAccess:
        return BusAccess(user=user, password_file=self.passwords / user)

    def bus(self, user: str) -> Any:
        return Bus.connect(self.server.url, user, self.access(user))


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    passwords = {user: f"secret of {user}" for user in USERS}
    for user, password in passwords.items():
        (tmp_path / user).write_text(f"{password}\n")
    config = f"{SMALL_PAYLOADS}\n{build_users_config(build_passwords_config(passwords))}"
    async with run_nats_server(tmp_path / "nats", config) as server:
        yield Broker(server, tmp_path)


# --- each service's own work ---


@dataclass(frozen=True)
class Road:
    """Messages of one stream, from one service to another."""

    sender: str
    receiver: str
    stream: StreamSpec


ROADS = [
    Road(sender, receiver, stream)
    for stream in STREAMS
    for sender, sends in USERS.items()
    for receiver, gets in USERS.items()
    if stream in (*sends.asks, *sends.answers) and stream in gets.takes
]


def test_every_stream_has_one_who_sends_and_one_who_takes() -> None:
    assert [road.stream for road in ROADS] == list(STREAMS)


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.stream.name)
@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "over-max-payload"])
async def test_a_message_goes_its_way(broker: Broker, road: Road, size: int, eventually: Eventually) -> None:
    received: list[str] = []

    async def handle(delivery: Any) -> None:
        received.append(delivery.message.text)

    async with broker.bus(road.sender) as sender, broker.bus(road.receiver) as receiver:
        subject = road.stream.subjects[0].replace(">", "a.b.c")
        await sender.publish(subject, Word(text="x" * size), msg_id="1")
        assert await sender.has_message(road.stream.name, subject)
        assert (await read_backlog(receiver, road.stream)).messages == 1
        async with consuming(receiver, road.stream, handle):
            await eventually(lambda: bool(received))
        assert received == ["x" * size]

        async def is_acknowledged() -> bool:
            return not await receiver.has_message(road.stream.name, subject)

        await eventually(is_acknowledged)
        assert await read_backlog(receiver, road.stream) == Backlog(0, 0)
        await receiver.delete_consumer(road.stream.name, "taker")
        await receiver.purge(road.stream.name, subject)


@pytest.mark.parametrize("road", [r for r in ROADS if r.stream in USERS[r.sender].asks], ids=lambda r: r.stream.name)
async def test_a_request_is_taken_back_from_whoever_is_at_it(
    broker: Broker, road: Road, eventually: Eventually
) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def handle(_: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with broker.bus(road.sender) as sender, broker.bus(road.receiver) as receiver:
        await sender.publish(road.stream.subjects[0].replace(">", "a.b.c"), Word(), msg_id=None)
        async with consuming(receiver, road.stream, handle):
            await eventually(started.is_set)
            await sender.withdraw(road.stream.name, road.stream.subjects[0].replace(">", "*.b.c"))
            await eventually(ended.is_set)


@pytest.mark.parametrize("user", [user for user, rights in USERS.items() if rights.starts_calls])
async def test_a_call_is_claimed(broker: Broker, user: str) -> None:
    async with broker.bus(user) as bus:
        assert await bus.started_calls.claim("default/c1", holder="h")
        assert await bus.started_calls.claim("default/c1", holder="h")
        assert await bus.started_calls.created_at()
        assert not await bus.started_calls.forbid("default/c1")


async def is_told(bus: Bus, key: str, told: list[str]) -> bool:
    """Says it again and again: nothing tells when a server has heard that somebody listens."""
    await bus.shared.tell(key)
    return key in told


async def is_asked(bus: Bus, question: HandOver, asked: list[Answer]) -> bool:
    await bus.peers.tell(handover_subject("b"), question)
    return bool(asked)


async def is_answered(asked: list[Answer], news: News[HandOverNews]) -> bool:
    for say in asked:
        await say(HandOverNews(news="Done"))
    said = await news.next(0.1)
    return said is not None and said.news == "Done"


async def test_gateways_share_entries_and_tell_what_is_written(broker: Broker, eventually: Eventually) -> None:
    told: list[str] = []
    listening = llm_listening_subject("default", "t")
    async with broker.bus("llm-gateway") as one, broker.bus("llm-gateway") as other:
        revision = await one.shared.write("health.1", b"{}", 0)
        assert revision
        assert (await other.shared.read("health.1")).revision == revision
        assert await other.shared.find_keys("health.*") == ["health.1"]
        end = await other.shared.listen("health.*", told.append)
        await eventually(lambda: is_told(one, "health.1", told))
        await end()
        told.clear()
        async with one.live.hear(listening, lambda *_: told.append("listening")):
            await one.live.tell(llm_delta_subject("default", "t"), LLMListening())
            await one.shared.read("health.1")  # a round trip behind both; the client's flush overtakes them


@pytest.mark.parametrize("user", USERS)
async def test_what_the_broker_lost_is_made_anew_by_whoever_notices(
    broker: Broker, user: str, eventually: Eventually
) -> None:
    async with broker.bus(user) as bus:
        lost: list[bool] = []
        bus.on_topology_lost(lambda _: lost.append(True))
        await broker.server.lose_storage()
        await eventually(lambda: bool(lost), within=20.0)
        for stream in USERS[user].streams:
            assert await bus.connection.js.stream_info(stream)


# --- and nothing of another's ---


LAST = "kubechain.the.last"


async def try_out(broker: Broker, user: str, publishes: set[str], subscribes: set[str]) -> tuple[set[str], set[str]]:
    """Which of these the server refuses, in lower case, as the client tells it.

    The server answers in order, so what it says to the last one is all that it says.
    """
    refused: dict[str, set[str]] = {"publish": set(), "subscription": set()}
    answered = asyncio.Event()

    async def note(error: Exception) -> None:
        found = re.search(r'permissions violation for (publish|subscription) to "([^"]+)"', str(error))
        assert found, error
        refused[found[1]].add(found[2])
        if found[2] == LAST:
            answered.set()

    nc: Any = Client()
    await nc.connect(broker.server.url, error_cb=note, **broker.access(user).build_options())
    try:
        for subject in subscribes:
            await nc.subscribe(subject)
        for subject in publishes:
            await nc.publish(subject, b"")
        await nc.publish(LAST, b"")
        async with asyncio.timeout(10):
            await answered.wait()
    finally:
        await nc.close()
    return refused["publish"] - {LAST}, refused["subscription"]


def covers(pattern: str, subject: str) -> bool:
    """Whether every subject of ``subject``, which may have wildcards itself, is one of ``pattern``."""
    wanted, given = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(given) > index
        if index >= len(given) or given[index] == ">" or (token != "*" and token != given[index]):
            return False
    return len(wanted) == len(given)


def concrete(pattern: str) -> str:
    return pattern.replace("*", "x").replace(">", "x.y")


NOBODYS = {
    "kubechain.anything.else",
    *(f"$JS.API.STREAM.DELETE.{stream}" for stream in ALL_STREAMS),
    "$JS.API.STREAM.CREATE.SOMETHING",
    "$JS.API.STREAM.LIST",
    "$JS.API.INFO",
    "$JS.API.ACCOUNT.PURGE.x",
    "$SYS.REQ.SERVER.PING",
    *(f"{inbox_prefix(user)}.x" for user in USERS),
}
EAVESDROPPING = {
    ">",
    "kubechain.>",
    "$JS.>",
    "$KV.>",
    "$O.>",
    "$SYS.>",
    "_INBOX.>",
    *(subject for stream in STREAMS for subject in stream.subjects),
}


@pytest.mark.parametrize("user", USERS)
async def test_a_service_with_the_user_of_another_is_refused(broker: Broker, user: str) -> None:
    async with broker.bus(user):
        pass  # the streams are there: what is refused is not refused for want of them
    own_publish, own_subscribe = build_publish_rights(user), build_subscribe_rights(user)
    publishes = {concrete(right) for other in USERS for right in build_publish_rights(other)} | NOBODYS
    subscribes = {right for other in USERS for right in build_subscribe_rights(other)} | EAVESDROPPING
    refused_publish, refused_subscribe = await try_out(broker, user, publishes, subscribes)
    assert refused_publish == {s.lower() for s in publishes if not any(covers(right, s) for right in own_publish)}
    assert refused_subscribe == {s.lower() for s in subscribes if not any(covers(right, s) for right in own_subscribe)}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("other", USERS)
def test_only_the_two_ends_of_a_road_share_a_subject(user: str, other: str) -> None:
    ends = [s for s in STREAMS if s in (*USERS[other].asks, *USERS[other].answers)]
    published = {subject for stream in ends for subject in stream.subjects}
    mine = set(build_publish_rights(user)) & published
    assert mine == (published if user == other else set())


# --- credentials ---


@asynccontextmanager
async def connecting(broker: Broker, user: str) -> AsyncIterator[asyncio.Event]:
    """The event is set once the user is connected; leaving waits for that."""
    connected = asyncio.Event()

    async def connect() -> None:
        async with broker.bus(user):
            connected.set()

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(connect())
        yield connected


async def test_a_wrong_password_is_told_and_waited_out(broker: Broker, tmp_path: Path, eventually: Eventually) -> None:
    def told() -> list[Any]:
        return [entry for entry in logs if "does not take our user and password" in entry["event"]]

    right = (tmp_path / "mcp-host").read_text()
    (tmp_path / "mcp-host").write_text("not-the-right-one")
    with capture_logs() as logs:
        async with connecting(broker, "mcp-host") as connected:
            await eventually(lambda: bool(told()))
            assert not connected.is_set()
            (tmp_path / "mcp-host").write_text(right)
    assert [(entry["log_level"], entry["user"]) for entry in told()] == [("error", "mcp-host")], "and only once"
    assert "not-the-right-one" not in str(logs)


async def test_a_missing_password_file_is_waited_for(broker: Broker, tmp_path: Path, eventually: Eventually) -> None:
    (tmp_path / "mcp-host").rename(tmp_path / "elsewhere")
    with capture_logs() as logs:
        async with connecting(broker, "mcp-host"):
            await eventually(lambda: any("No such file" in str(entry.get("error")) for entry in logs))
            (tmp_path / "elsewhere").rename(tmp_path / "mcp-host")


async def test_a_new_password_is_read_when_the_connection_comes_back(
    broker: Broker, tmp_path: Path, eventually: Eventually
) -> None:
    async with broker.bus("mcp-host") as bus:
        await broker.server.kill()
        passwords = {user: f"new secret of {user}" for user in USERS}
        broker.server.configure(f"{build_users_config(build_passwords_config(passwords))}")
        (tmp_path / "mcp-host").write_text(passwords["mcp-host"])
        await broker.server.start()
        await bus.connection.ready(20)
        assert await bus.started_calls.created_at() <= datetime.now(UTC)


@asynccontextmanager
async def consuming(bus: Bus, stream: StreamSpec, handle: Callable[[Any], Awaitable[None]]) -> AsyncIterator[None]:
    spec = ConsumerSpec(stream.name, "taker", stream.subjects[0].replace(">", "a.>"), 8, ack_wait=1.0)
    consumer = Consumer(bus, spec, Word, handle, concurrency=8)
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(consumer.run(stopping))
        try:
            yield
        finally:
            stopping.set()


async def test_hosts_share_sessions_and_hand_calls_over(broker: Broker, eventually: Eventually) -> None:
    told: list[str] = []
    asked: list[Answer] = []
    key = session_key("server", "task")
    async with broker.bus("mcp-host") as one, broker.bus("mcp-host") as other, broker.bus("task-controller") as tasks:
        assert await one.shared.write(key, b"{}", 0)
        end = await other.shared.listen(session_key(">"), told.append)
        await eventually(lambda: is_told(one, key, told))
        await end()
        question = HandOver(session="s", subject="x", sequence=1, attempt=1)
        async with other.peers.answering(handover_subject("b"), HandOver, lambda _, say: asked.append(say)):
            await eventually(lambda: is_asked(one, question, asked))
            async with one.peers.ask(handover_subject("b"), question, HandOverNews) as news:
                await eventually(lambda: is_answered(asked, news))
        async with (
            other.live.hear(REPLICA_ALIVE, lambda *_: told.append("alive")),
            other.live.hear(task_ended_subject(ANY, ANY), lambda *_: told.append("ended")),
        ):

            async def are_heard() -> bool:
                await one.live.tell(REPLICA_ALIVE, Alive(pod="a", instance="a"))
                await tasks.peers.tell(task_ended_subject("default", "t"), Envelope())
                return {"alive", "ended"} <= set(told)

            await eventually(are_heard)


async def test_a_host_can_not_write_what_gateways_share(broker: Broker) -> None:
    async with broker.bus("mcp-host") as host:
        with pytest.raises(MessagingError):
            await host.shared.write("health.1", b"{}", 0)
