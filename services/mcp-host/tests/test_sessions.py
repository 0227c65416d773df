"""Servers that remember, on several replicas: where their calls run, and what becomes of them when a replica goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from host_testbed import Host, collecting, run_replica
from mcp_testbed import eventually, plain_server

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.messages import ToolResult
from kubechain_common.messages.envelope import Envelope
from kubechain_common.messages.topology import ANY, TOOL_REQUESTS, session_key, task_ended_subject, tool_request_subject
from kubechain_common.testing.nats_server import NatsServer, run_nats_server
from kubechain_mcp_host.sessions import roster

pytestmark = pytest.mark.integration

REESTABLISHED = "SessionReestablished"


@dataclass
class Fleet:
    """Replicas of which the first takes the results."""

    nats: NatsServer
    replicas: list[Host]

    def change(self, kind: str, server: MCPServer) -> None:
        for replica in self.replicas:
            replica.change(kind, server)

    async def pid(self, server: MCPServer, uid: str, task: str = "") -> str:
        """Which process answers a call."""
        await self.replicas[0].request(server, "pid", uid=uid, task=task)
        result: ToolResult = await self.replicas[0].result(uid, 20.0)
        assert result.outcome == "Succeeded", result.error
        return result.content

    def hosts(self, server: MCPServer) -> list[Host]:
        return [replica for replica in self.replicas if replica.sessions.shared.hosts(server)]

    def told(self) -> list[tuple[str, str, str]]:
        return [event for replica in self.replicas for event in replica.told.events]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(run_nats_server(tmp_path))
        replicas = [await stack.enter_async_context(run_replica(nats.url, f"mcp-host-{n}")) for n in range(3)]
        await stack.enter_async_context(collecting(replicas[0]))
        yield Fleet(nats, replicas)


@pytest.fixture
def never_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No replica is found to be gone: another one can have only what was given up."""
    monkeypatch.setattr(roster, "GONE_SECONDS", 600.0)


async def test_the_calls_of_a_task_run_in_one_process_those_of_another_in_another(fleet: Fleet) -> None:
    server = plain_server(session="PerTask")
    fleet.change("added", server)
    pids = {task: [await fleet.pid(server, f"{task}-{n}", task) for n in range(6)] for task in ("one", "two", "three")}
    assert all(len(set(of_task)) == 1 for of_task in pids.values()), pids
    assert len({of_task[0] for of_task in pids.values()}) == 3
    assert fleet.told() == []


async def test_calls_of_one_task_may_run_at_the_same_time(fleet: Fleet) -> None:
    server = plain_server(session="PerTask")
    fleet.change("added", server)
    await asyncio.gather(*(fleet.pid(server, f"call-{n}", "one") for n in range(20)))
    assert len({result[0].content for result in fleet.replicas[0].results.values()}) == 1
    assert all(len(results) == 1 for results in fleet.replicas[0].results.values())


async def test_a_session_ends_with_its_task(fleet: Fleet) -> None:
    server = plain_server(session="PerTask")
    fleet.change("added", server)
    await fleet.pid(server, "call-1", "one")
    assert count_sessions(fleet) == 1
    await fleet.replicas[1].bus.peers.tell(task_ended_subject("default", "uid-one"), Envelope())
    await eventually(lambda: count_sessions(fleet) == 0)


async def test_a_deleted_server_takes_its_sessions_with_it(fleet: Fleet) -> None:
    server = plain_server(session="PerTask")
    fleet.change("added", server)
    await fleet.pid(server, "call-1", "one")
    fleet.change("deleted", server)
    assert count_sessions(fleet) == 0


@pytest.mark.usefixtures("never_gone")
async def test_a_replica_that_stops_gives_its_sessions_up_at_once(fleet: Fleet) -> None:
    server = plain_server(session="PerTask")
    fleet.change("added", server)
    first = await fleet.pid(server, "call-1", "one")
    owner = next(replica for replica in fleet.replicas if session_of(replica, server, "one"))
    owner.stopping.set()
    second = await fleet.pid(server, "call-2", "one")
    assert first != second
    assert sorted(fleet.told()) == [
        ("MCPServer", "plain", REESTABLISHED),
        ("Task", "one", REESTABLISHED),
        ("TaskRunToolCall", "the-call", REESTABLISHED),
    ]
    await fleet.pid(server, "call-3", "one")
    assert len(fleet.told()) == 3, "told once"


async def test_a_call_runs_to_its_end_before_its_session_is_given_up(fleet: Fleet) -> None:
    server = plain_server(session="PerTask")
    fleet.change("added", server)
    await fleet.pid(server, "call-1", "one")
    owner = next(replica for replica in fleet.replicas if session_of(replica, server, "one"))
    await fleet.replicas[0].request(server, "slow", '{"seconds": 1}', uid="slow", task="one")
    await eventually(lambda: owner.room.taken == 1)
    owner.stopping.set()
    assert session_of(owner, server, "one")
    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.pid(server, "call-2", "one"))
        assert (await fleet.replicas[0].result("slow")).content == "slept"
    assert not session_of(owner, server, "one")


async def test_a_process_that_dies_is_told_as_a_session_that_began_anew(fleet: Fleet) -> None:
    server = plain_server(session="PerTask")
    fleet.change("added", server)
    first = await fleet.pid(server, "call-1", "one")
    await fleet.replicas[0].request(server, "die", uid="die", task="one")
    assert (await fleet.replicas[0].result("die")).reason == "OutcomeUnknown"
    assert await fleet.pid(server, "call-2", "one") != first
    assert ("Task", "one", REESTABLISHED) in fleet.told()


async def test_a_call_that_is_taken_back_ends_where_its_session_is(fleet: Fleet) -> None:
    server = plain_server(session="PerTask")
    fleet.change("added", server)
    await fleet.pid(server, "call-1", "one")
    for n in range(4):  # one of them is taken by another replica than the session's
        await fleet.replicas[0].request(server, "slow", '{"seconds": 30}', uid=f"slow-{n}", task="one")
    await eventually(lambda: sum(replica.room.taken for replica in fleet.replicas) == 4)
    for n in range(4):
        subject = tool_request_subject(server.uid, "default", f"slow-{n}")
        await fleet.replicas[0].bus.withdraw(TOOL_REQUESTS.name, subject)
    await eventually(lambda: sum(replica.room.taken for replica in fleet.replicas) == 0)
    assert all(f"slow-{n}" not in fleet.replicas[0].results for n in range(4))


async def test_sessions_outlive_a_loss_of_the_brokers_storage(fleet: Fleet) -> None:
    server = plain_server(session="PerTask")
    fleet.change("added", server)
    first = await fleet.pid(server, "call-1", "one")
    owner = next(replica for replica in fleet.replicas if session_of(replica, server, "one"))
    await fleet.nats.lose_storage()
    key = session_key(server.uid, "uid-one")
    await eventually(lambda: all(replica.bus.connected for replica in fleet.replicas), 10.0)
    await until(lambda: is_held(owner, key))
    assert await fleet.pid(server, "call-2", "one") == first
    assert fleet.told() == []


async def test_an_idle_session_is_closed_and_comes_back_with_an_event(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(run_nats_server(tmp_path))
        replica = await stack.enter_async_context(run_replica(nats.url, idle=1.0))
        await stack.enter_async_context(collecting(replica))
        fleet, server = Fleet(nats, [replica]), plain_server(session="PerTask")
        fleet.change("added", server)
        first = await fleet.pid(server, "call-1", "one")
        await eventually(lambda: count_sessions(fleet) == 0)
        assert await fleet.pid(server, "call-2", "one") != first
        assert ("Task", "one", REESTABLISHED) in fleet.told()


async def test_an_idle_session_is_not_kept_beyond_its_task_or_its_server(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(run_nats_server(tmp_path))
        replica = await stack.enter_async_context(run_replica(nats.url, idle=1.0))
        await stack.enter_async_context(collecting(replica))
        fleet, server = Fleet(nats, [replica]), plain_server(session="PerTask")
        fleet.change("added", server)
        for task in ("one", "two"):
            await fleet.pid(server, f"call-of-{task}", task)
        await eventually(lambda: count_sessions(fleet) == 0)
        claims = replica.sessions.tasks._claims
        keys = [session_key(server.uid, f"uid-{task}") for task in ("one", "two")]
        assert claims.held_of(server.uid, ANY) == keys
        await replica.bus.peers.tell(task_ended_subject("default", "uid-one"), Envelope())
        await eventually(lambda: claims.held_of(server.uid, ANY) == keys[1:])
        fleet.change("deleted", server)
        assert claims.held_of(ANY, ANY) == []


async def test_a_shared_server_is_connected_by_one_replica_which_takes_all_its_calls(fleet: Fleet) -> None:
    server = plain_server(session="Shared")
    fleet.change("added", server)
    pids = {await fleet.pid(server, f"call-{n}", f"task-{n}") for n in range(9)}
    assert len(pids) == 1
    assert len(fleet.hosts(server)) == 1
    assert sum(replica.pool.get(server.uid) is not None for replica in fleet.replicas) == 1
    assert fleet.told() == []


async def test_shared_servers_are_spread(fleet: Fleet) -> None:
    servers = []
    for n in range(6):
        server = plain_server(session="Shared")
        server.metadata.uid = server.metadata.name = f"server-{n}"
        servers.append(server)
        fleet.change("added", server)
        await eventually(lambda server=server: fleet.hosts(server))  # type: ignore[misc]
    assert max(sum(replica.sessions.shared.hosts(server) for server in servers) for replica in fleet.replicas) <= 4


@pytest.mark.usefixtures("never_gone")
async def test_the_next_replica_hosts_a_shared_server_at_once_when_its_own_stops(fleet: Fleet) -> None:
    server = plain_server(session="Shared")
    fleet.change("added", server)
    first = await fleet.pid(server, "call-1", "one")
    [owner] = fleet.hosts(server)
    owner.stopping.set()
    second = await fleet.pid(server, "call-2", "one")
    assert first != second
    assert fleet.hosts(server) != [owner]
    assert sorted(fleet.told()) == [
        ("MCPServer", "plain", REESTABLISHED),
        ("Task", "one", REESTABLISHED),
        ("TaskRunToolCall", "the-call", REESTABLISHED),
    ]


async def test_a_shared_server_that_is_deleted_and_lost_in_the_same_moment_ends_once(fleet: Fleet) -> None:
    server = plain_server(session="Shared")
    fleet.change("added", server)
    await eventually(lambda: len(fleet.hosts(server)) == 1)
    [host] = fleet.hosts(server)
    fleet.change("deleted", server)
    assert host.sessions.shared.hosts(server)
    host.sessions.shared.lose(session_key(server.uid))
    await eventually(lambda: fleet.hosts(server) == [])


async def test_a_deleted_shared_server_still_answers_for_a_while(fleet: Fleet) -> None:
    server = plain_server(session="Shared")
    fleet.change("added", server)
    await fleet.pid(server, "call-1", "one")
    fleet.change("deleted", server)
    await fleet.replicas[0].request(server, "pid", uid="late", task="one")
    assert (await fleet.replicas[0].result("late")).error == 'MCPServer "plain" was deleted.'


def session_of(replica: Host, server: MCPServer, task: str) -> bool:
    return session_key(server.uid, f"uid-{task}") in replica.sessions.tasks._hosted


def count_sessions(fleet: Fleet) -> int:
    return sum(len(replica.sessions.tasks._hosted) for replica in fleet.replicas)


async def is_held(replica: Host, key: str) -> bool:
    return bool((await replica.bus.shared.read(key)).data)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.02)
