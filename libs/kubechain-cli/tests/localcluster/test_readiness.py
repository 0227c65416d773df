"""What `kubechain status` shows of processes that are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.plan import Plan, write_plan
from kubechain_cli.localcluster.readiness import ask_processes
from kubechain_cli.localcluster.state import ClusterState, ProcessState

BINARIES = dict.fromkeys(("etcd", "kube-apiserver", "kube-controller-manager", "nats-server"), "/bin/true")
CLOSED = 1


@asynccontextmanager
async def answering(status: str) -> AsyncIterator[int]:
    """A port at which each request gets this answer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def build_state(layout: Layout, *, pid: int | None, ready: bool) -> ClusterState:
    nats = ProcessState(name="nats", pid=pid, port=None, ready=ready, restarts=0, log_file="/l")
    return ClusterState("/k", "nats://127.0.0.1:1", str(layout.root), 1, None, True, (nats,))


def plan_nats(layout: Layout, port: int, *services: str) -> None:
    ports = {"nats": CLOSED, "nats-monitor": port, **dict.fromkeys(services, CLOSED)}
    write_plan(layout, Plan(BINARIES, ports, services, context="x"))


async def test_what_answers_is_ready_whatever_the_supervisor_thought(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    async with answering("200 OK") as port:
        plan_nats(layout, port)
        assert (await ask_processes(layout, build_state(layout, pid=1, ready=False))).ready
        assert not (await ask_processes(layout, build_state(layout, pid=None, ready=False))).ready


async def test_what_says_so_or_nothing_is_not_ready(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    async with answering("503 Service Unavailable") as port:
        plan_nats(layout, port)
        assert not (await ask_processes(layout, build_state(layout, pid=1, ready=True))).ready
    plan_nats(layout, CLOSED)
    assert not (await ask_processes(layout, build_state(layout, pid=1, ready=True))).ready


async def test_without_a_plan_the_supervisor_is_believed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    state = build_state(layout, pid=1, ready=True)
    assert await ask_processes(layout, state) == state
    layout.plan.write_text("half a pl")
    assert await ask_processes(layout, state) == state


async def test_a_service_that_is_not_installed_here_does_not_matter(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    plan_nats(layout, CLOSED, "from-elsewhere")
    state = build_state(layout, pid=1, ready=True)
    assert await ask_processes(layout, state) == state
