"""Isolated stdio servers: a probe tries what it should not be able to, and the same probe without isolation can."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mcp_testbed import SERVERS, Harness, connect, eventually, is_alive, isolate, isolated_only

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.testing.builders import build_mcp_server
from kubechain_mcp_host.connections.state import Phase
from kubechain_mcp_host.errors import ConnectionLostError
from kubechain_mcp_host.stdio.environment import DEFAULT_PASSTHROUGH, build_base_environment
from kubechain_mcp_host.stdio.isolation import Isolation
from kubechain_mcp_host.stdio.launch import StdioLauncher

pytestmark = pytest.mark.integration

PROBE = Path(__file__).resolve().parents[3] / "tests/e2e/servers/probe_server.py"
DONE = "done"
DENIED = "Permission denied"


def probe(name: str = "probe", **spec: Any) -> MCPServer:
    server = build_mcp_server(name, connected=False, command="python3", args=[str(PROBE)], **spec)
    server.metadata.uid = str(uuid4())
    return server


async def grow(harness: Harness) -> None:
    """Until that has consequences."""
    while True:
        await harness.call("eat", mebibytes=20)


async def ask(harness: Harness, tool: str, **arguments: object) -> Any:
    return json.loads(await harness.call(tool, **arguments))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that stands for whatever is mounted into the pod."""
    path = tmp_path / "mounted" / "token"
    path.parent.mkdir()
    path.write_text("s3cr3t")
    return path


@pytest.fixture
def isolation(tmp_path: Path) -> Isolation:
    return isolate(tmp_path / "homes", str(PROBE.parent), str(SERVERS))


@pytest.fixture
def isolating(isolation: Isolation) -> StdioLauncher:
    return StdioLauncher(build_base_environment(os.environ, DEFAULT_PASSTHROUGH), isolation)


@pytest.fixture
def plain() -> StdioLauncher:
    return StdioLauncher(build_base_environment(os.environ, DEFAULT_PASSTHROUGH))


@pytest.fixture
def listening() -> Iterator[Callable[[int], str]]:
    """Listens on a TCP port; the address for the probe."""
    sockets: list[socket.socket] = []

    def listen(port: int) -> str:
        sockets.append(socket.create_server(("127.0.0.1", port)))
        return f"127.0.0.1:{sockets[-1].getsockname()[1]}"

    yield listen
    for each in sockets:
        each.close()


@pytest.fixture
def abstract() -> Iterator[str]:
    """An abstract unix socket outside any isolation."""
    name = f"kubechain-{uuid4()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        yield f"@{name}"


@isolated_only
async def test_a_probe_gets_at_nothing_that_is_not_its_own(
    isolation: Isolation,
    plain: StdioLauncher,
    secret: Path,
    abstract: str,
    listening: Callable[[int], str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nats:
        ports = frozenset({nats.getsockname()[1]})
        isolating = StdioLauncher(
            build_base_environment(os.environ, DEFAULT_PASSTHROUGH),
            replace(isolation, denied_ports=ports),
        )
        forbidden, allowed = f"127.0.0.1:{nats.getsockname()[1]}", listening(0)
        paths = [str(secret), str(secret.parent), str(isolation.data), "/root", "/home", "/tmp", "/run", "/var/lib"]
        folders = [str(secret.parent), "/tmp", "/var/tmp", "/dev/shm", "/run"]
        us = [os.getpid()]

        async def try_all(harness: Harness) -> dict[str, dict[str, Any]]:
            guard = (await ask(harness, "facts"))["guard"]
            return {
                "read": await ask(harness, "read", paths=paths),
                "write": await ask(harness, "write", folders=folders),
                "processes": await ask(harness, "processes", pids=[*us, guard]),
                "signal": await ask(harness, "signal", pids=[*us, guard]),
                "trace": await ask(harness, "trace", pids=[guard]),
                "connect": await ask(harness, "connect", addresses=[forbidden, abstract]),
                "detour": await ask(harness, "detour", addresses=[forbidden]),
                "free": await ask(harness, "connect", addresses=[allowed]),
            }

        async with connect(probe(), launcher=isolating) as harness:
            home = (await ask(harness, "facts"))["cwd"]
            walled = await try_all(harness)
            assert set((await ask(harness, "write", folders=[home, f"{home}/tmp"])).values()) == {DONE}
            assert not any((await ask(harness, "processes")).values()), "it saw into some process of this machine"
            assert not any((await ask(harness, "everything"))["processes"].values())
        async with connect(probe(), launcher=plain) as harness:
            free = await try_all(harness)
    assert set(walled["read"].values()) == {DENIED}
    assert set(walled["write"].values()) == {DENIED}
    assert not any(walled["processes"].values())
    assert set(walled["signal"].values()) == set(walled["trace"].values()) == {"Operation not permitted"}
    assert walled["connect"] == {forbidden: DENIED, abstract: "Operation not permitted"}
    assert walled["detour"] == {
        f"mptcp to {forbidden}": "Protocol not supported",
        f"fast open to {forbidden}": "Operation not supported",
        f"fast open by message to {forbidden}": "Operation not supported",
        f"fast open by connect to {forbidden}": DENIED,
        "io_uring": "Function not implemented",
    }
    assert set(walled["free"].values()) == {DONE}
    # So it is the isolation that kept it from all this.
    assert {free["read"][str(secret)], free["read"][str(secret.parent)], free["write"][str(secret.parent)]} == {DONE}
    assert all(pids == [*us, pids[-1]] and len(pids) == 2 for pids in free["processes"].values()), free["processes"]
    for kind in ("signal", "trace", "connect", "free"):
        assert set(free[kind].values()) == {DONE}, kind
    # Not every kernel has MPTCP and io_uring.
    assert {outcome for way, outcome in free["detour"].items() if way.startswith("fast open")} == {DONE}


@isolated_only
async def test_nothing_obeys_a_servers_environment_before_it_is_isolated(
    isolating: StdioLauncher, plain: StdioLauncher, secret: Path
) -> None:
    """The loader of a program writes where it is told to, and would load what it is told to as well."""
    env = [{"name": "LD_DEBUG", "value": "statistics"}, {"name": "LD_DEBUG_OUTPUT", "value": f"{secret.parent}/loader"}]
    async with connect(probe(env=env), launcher=isolating) as harness:
        assert (await ask(harness, "facts"))["environ"]["LD_DEBUG"] == "statistics"
    assert os.listdir(secret.parent) == [secret.name]
    async with connect(probe(env=env), launcher=plain) as harness:
        pid = (await ask(harness, "facts"))["pid"]
        assert f"loader.{pid}" in os.listdir(secret.parent)


@isolated_only
async def test_two_servers_do_not_see_each_other(isolating: StdioLauncher, isolation: Isolation) -> None:
    mine, yours = probe(env=[{"name": "MINE", "value": "m1ne"}]), probe(env=[{"name": "YOURS", "value": "y0urs"}])
    async with connect(mine, launcher=isolating) as first, connect(yours, launcher=isolating) as second:
        me, you = await ask(first, "facts"), await ask(second, "facts")
        assert me["environ"]["MINE"] == "m1ne"
        assert "MINE" not in you["environ"]
        assert me["cwd"] == me["environ"]["HOME"] == str(isolation.data / mine.uid)
        assert os.stat(me["cwd"]).st_mode & 0o777 == 0o700
        assert (await ask(second, "read", paths=[me["cwd"]])) == {me["cwd"]: DENIED}
        assert (await ask(second, "write", folders=[me["cwd"]])) == {me["cwd"]: DENIED}
        pids = [me["pid"], me["guard"]]
        assert not any((await ask(second, "processes", pids=pids)).values())
        assert set((await ask(second, "signal", pids=pids)).values()) == {"Operation not permitted"}
        assert set((await ask(second, "trace", pids=pids)).values()) == {"Operation not permitted"}


@isolated_only
async def test_the_folder_stays_over_restarts_and_goes_with_the_server(
    isolating: StdioLauncher, isolation: Isolation
) -> None:
    server = probe()
    home = isolation.data / server.uid
    async with connect(server, launcher=isolating) as harness:
        await harness.connected()
        (home / "cache").mkdir()
        (home / "cache" / "file").write_text("x")
        (home / "cache").chmod(0o500)
    async with connect(server, launcher=isolating) as harness:
        await harness.connected()
        assert (home / "cache" / "file").exists()
    await isolating.forget_others({server.uid})
    assert home.exists()
    await isolating.forget_others(set())
    assert not home.exists()
    await isolating.forget(server.uid)


@isolated_only
async def test_what_is_no_servers_folder_is_left_alone(isolating: StdioLauncher, isolation: Isolation) -> None:
    other = isolation.data / "not-ours"
    other.mkdir(parents=True)
    await isolating.forget_others(set())
    assert other.exists()


@isolated_only
async def test_daemons_of_an_isolated_server_end_with_it(isolating: StdioLauncher) -> None:
    async with connect(probe(), launcher=isolating) as harness:
        pids = [(await ask(harness, "facts"))["pid"], *await ask(harness, "scatter")]
        assert len(pids) == 3
        assert all(is_alive(pid) for pid in pids)
    await eventually(lambda: not any(is_alive(pid) for pid in pids))


@isolated_only
async def test_daemons_of_an_isolated_server_end_with_a_killed_host(tmp_path: Path) -> None:
    command = [sys.executable, str(SERVERS / "lonely_host.py"), "--isolated", str(tmp_path), "python3", str(PROBE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as host:  # noqa: ASYNC220 - nothing else runs here
        assert host.stdout is not None
        while not (line := host.stdout.readline()).startswith(b"["):
            assert host.poll() is None
        family = json.loads(line)
        assert all(is_alive(pid) for pid in family)
        host.kill()
    await eventually(lambda: not any(is_alive(pid) for pid in family))


@isolated_only
async def test_a_program_out_of_reach_is_named(isolating: StdioLauncher, tmp_path: Path) -> None:
    program = tmp_path / "server"
    shutil.copy("/bin/true", program)
    server = build_mcp_server(command=str(program), args=[], connected=False)
    async with connect(server, launcher=isolating) as harness:
        failure = await harness.failed()
        assert failure.error.startswith(f'command "{program}" is {program}, which isolated servers can not reach: ')


async def test_a_server_that_can_not_be_isolated_is_not_started(tmp_path: Path) -> None:
    launcher = StdioLauncher({}, Isolation(tmp_path, obstacle="Stdio servers can not be isolated: the moon is full."))
    async with connect(probe(), launcher=launcher) as harness:
        await eventually(lambda: harness.state.phase is Phase.BLOCKED)
        assert harness.state.reason == "IsolationFailed"
        assert harness.state.error == "Stdio servers can not be isolated: the moon is full."


async def test_a_folder_that_can_not_be_made_is_named(isolation: Isolation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    launcher = StdioLauncher({}, Isolation(tmp_path / "file", isolation.readable))
    async with connect(probe(), launcher=launcher) as harness:
        failure = await harness.failed()
        assert "mcp-host has to be able to write there (KUBECHAIN_MCP_DATA)" in failure.error


@pytest.mark.parametrize("isolated", [pytest.param(True, marks=isolated_only), False])
async def test_a_server_over_its_memory_limit_is_ended_and_says_so(
    isolated: bool, request: pytest.FixtureRequest
) -> None:
    launcher = request.getfixturevalue("isolating" if isolated else "plain")
    async with connect(probe(resources={"limits": {"memory": "64Mi"}}), launcher=launcher) as harness:
        assert await ask(harness, "eat", mebibytes=4) == 4
        first = (await ask(harness, "facts"))["pid"]
        with pytest.raises(ConnectionLostError, match=r"^the server used \d+Mi of memory, its limit is 64Mi \(spec"):
            await grow(harness)
        failure = await harness.failed()
        assert failure.error.startswith("the server used ")
        assert failure.lost
        assert failure.last_output == ""
        assert (await ask(harness, "facts"))["pid"] != first
        assert not is_alive(first)


async def test_pages_that_processes_share_count_once(plain: StdioLauncher) -> None:
    async with connect(probe(resources={"limits": {"memory": "150Mi"}}), launcher=plain) as harness:
        assert await ask(harness, "eat", mebibytes=60) == 60
        await ask(harness, "spin", seconds=0.6, processes=4)
        assert harness.state.phase is Phase.CONNECTED


async def test_a_spinning_server_keeps_to_its_share_of_the_cpu(plain: StdioLauncher) -> None:
    async with connect(probe(resources={"limits": {"cpu": "200m"}}), launcher=plain) as harness:
        await harness.connected()
        shares = []
        for _ in range(3):  # a machine that stalls keeps the guard from looking, or the server from running
            before = asyncio.get_running_loop().time()
            used = await ask(harness, "spin", seconds=5, processes=2)
            shares.append(used / (asyncio.get_running_loop().time() - before))
            if 0.08 < shares[-1] < 0.25:
                break
        assert 0.08 < shares[-1] < 0.25, shares


async def test_a_server_is_the_first_that_the_kernel_would_end(plain: StdioLauncher) -> None:
    async with connect(probe(), launcher=plain) as harness:
        assert (await ask(harness, "facts"))["oomScore"] == min(1000, own_oom_score() + 500)


def own_oom_score() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())
