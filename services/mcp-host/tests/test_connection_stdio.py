"""Connections to stdio servers: real processes, real pipes."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from itertools import pairwise
from pathlib import Path

import anyio
import psutil
import pytest
from mcp_testbed import FAST, PATIENCE, connect, eventually, is_alive, plain_server, sdk_server

from kubechain_common.runtime.clock import now
from kubechain_common.testing.builders import build_mcp_server
from kubechain_mcp_host.connections.state import MAX_TOOLS_BYTES, Phase, Timing
from kubechain_mcp_host.errors import ConnectionLostError, ServerUnavailableError
from kubechain_mcp_host.mcpserver_decision import decide_status

pytestmark = pytest.mark.integration


def look_at(pid: str, file: str) -> str:
    return Path("/proc", pid, file).read_text()


async def test_lists_the_tools_with_schemas_and_annotations() -> None:
    async with connect(plain_server()) as harness:
        await harness.connected()
        tools = {tool.name: tool for tool in harness.state.tools}
        assert list(tools) == ["echo", "env", "pid", "die", "slow", "grow", "fail", "flood", "odd"]
        assert tools["echo"].input_schema == {"type": "object", "properties": {"text": {"type": "string"}}}
        assert tools["echo"].annotations is not None
        assert tools["echo"].annotations.read_only_hint is True
        assert tools["echo"].annotations.title == "Echo"
        assert tools["pid"].annotations is None
        assert harness.state.protocol_version == "2025-06-18"


async def test_speaks_the_newest_protocol_with_the_sdk() -> None:
    async with connect(sdk_server()) as harness:
        await harness.connected()
        assert harness.state.protocol_version == "2026-07-28"
        assert await harness.call("echo", text="hi") == "hi"
        assert "'key': 'call-1'" in await harness.call("meta")


async def test_tells_the_older_protocols_news_of_tools() -> None:
    async with connect(plain_server()) as harness:
        assert await harness.call("grow") == "grown"
        await eventually(lambda: harness.state.tools[-1].name == "new")


async def test_tells_the_newer_protocols_news_of_tools() -> None:
    async with connect(sdk_server()) as harness:
        assert await harness.call("grow") == "grown"
        await eventually(lambda: harness.state.tools[-1].name == "new")


async def test_a_notice_with_every_list_is_no_reason_to_list_without_a_pause() -> None:
    async with connect(plain_server("--restless"), timing=Timing(spacing=0.3)) as harness:
        listed: list[float] = []
        async with asyncio.timeout(PATIENCE):
            while len(listed) < 5:
                listed = json.loads(await harness.call("listed"))
        first, *again = listed
        assert all(later - earlier >= 0.3 for earlier, later in pairwise(again))
        assert first < again[0]
        assert await harness.call("grow") == "grown"
        await eventually(lambda: harness.state.tools[-1].name == "new")


async def test_notices_the_death_of_an_idle_server_and_reconnects() -> None:
    async with connect(plain_server()) as harness:
        first = int(await harness.call("pid"))
        with pytest.raises(ConnectionLostError):
            await harness.call("die")
        lost = await harness.failed()
        assert lost.lost
        assert lost.last_output == "the process exited with status 3"
        assert int(await harness.call("pid")) != first


async def test_survives_garbage_on_stdout() -> None:
    async with connect(plain_server("--garbage")) as harness:
        assert await harness.call("echo", text="still here") == "still here"


async def test_a_failure_carries_the_last_words_of_the_process() -> None:
    async with connect(plain_server("--say", "cannot open database", "--exit", "7")) as harness:
        failure = await harness.failed()
        assert failure.error == "the server process ended, or closed its output, before it answered."
        assert failure.last_output == "cannot open database\nthe process exited with status 7"
        assert not failure.lost


async def test_secrets_do_not_show_in_a_failure() -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "token"}}}]
    server = plain_server("--say", "bad token s3cr3t-value", "--exit", "1", env=env)
    async with connect(server, {"creds": {"token": "s3cr3t-value\n"}}) as harness:
        failure = await harness.failed()
        assert "bad token ***" in failure.last_output


async def test_a_missing_command_is_named() -> None:
    async with connect(build_mcp_server(command="no-such-command", args=[])) as harness:
        failure = await harness.failed()
        assert failure.error == 'command "no-such-command" was not found in PATH.'


async def test_a_mute_server_is_given_up() -> None:
    timing = Timing(stdio_connect=1.0, last_retry=0.2)
    async with connect(plain_server("--mute", "--say", "thinking"), timing=timing) as harness:
        assert (await harness.failed()).error == "the server did not answer within 1 seconds."
        await eventually(lambda: harness.state.last_output)  # a busy machine may not have it started by the first time
        assert harness.state.last_output == "thinking"
        with pytest.raises(ServerUnavailableError, match="did not answer within"):
            await harness.connection.wait_session(0.1)


async def test_a_missing_secret_blocks_and_its_arrival_heals() -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "token"}}}]
    async with connect(plain_server(env=env)) as harness:
        await eventually(lambda: harness.state.phase is Phase.BLOCKED)
        assert harness.state.error.startswith('Secret "creds" was not found (needed for "TOKEN")')
        harness.secrets["creds"] = {"other": "x"}
        harness.connection.secrets_changed()
        await eventually(lambda: 'Secret "creds" has no key "token"' in harness.state.error)
        harness.secrets["creds"] = {"token": "abc"}
        harness.connection.secrets_changed()
        assert json.loads(await harness.call("env"))["TOKEN"] == "abc"


async def test_a_changed_secret_restarts_the_server() -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "token"}}}]
    async with connect(plain_server(env=env), {"creds": {"token": "old"}}) as harness:
        first = await harness.call("pid")
        harness.secrets["creds"] = {"token": "new"}
        harness.connection.secrets_changed()
        await eventually(lambda: harness.states[-1].phase is Phase.CONNECTING)
        assert json.loads(await harness.call("env"))["TOKEN"] == "new"
        assert not is_alive(int(first))


async def test_only_a_change_that_concerns_the_connection_restarts_it() -> None:
    server = plain_server()
    async with connect(server) as harness:
        first = await harness.call("pid")
        other = plain_server(maxConcurrency=3, requestTimeoutSeconds=5)
        other.metadata.generation = 2
        harness.connection.update(other)
        await eventually(lambda: harness.state.generation == 2)
        assert harness.state.phase is Phase.CONNECTED
        assert await harness.call("pid") == first
        third = plain_server("--say", "x")
        third.metadata.generation = 3
        harness.connection.update(third)
        await eventually(lambda: harness.state.phase is Phase.CONNECTED and harness.state.generation == 3)
        assert await harness.call("pid") != first


async def test_a_running_call_may_end_before_a_restart() -> None:
    async with connect(plain_server()) as harness:
        await harness.connected()
        slow = harness.call("slow", seconds=0.5)
        harness_update = plain_server("--say", "x")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(slow)
            await eventually(lambda: harness.connection._session is not None and harness.connection._session._running)
            harness.connection.update(harness_update)
        assert task.result() == "slept"


async def test_a_new_spec_ends_a_hanging_attempt() -> None:
    async with connect(plain_server("--mute")) as harness:
        await eventually(lambda: harness.connection._scope is not None)
        harness.connection.update(plain_server())
        await harness.connected()


async def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "no_proxy", "UV_INDEX_URL", "KUBECHAIN_NATS_URL", "KUBECONFIG", "MY_SECRET"):
        monkeypatch.setenv(name, "x")
    async with connect(plain_server(env=[{"name": "OWN", "value": "1"}])) as harness:
        seen = json.loads(await harness.call("env"))
    assert {"HTTPS_PROXY", "no_proxy", "UV_INDEX_URL", "OWN", "PATH", "HOME"} <= seen.keys()
    assert not {"KUBECHAIN_NATS_URL", "KUBECONFIG", "MY_SECRET"} & seen.keys()


async def test_the_environment_of_a_server_is_never_that_of_its_guard() -> None:
    """It could make the guard run what the server has written, and the guard is not isolated."""
    names = ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GCONV_PATH", "HOME", "OWN"]
    env = [{"name": name, "value": f"/nowhere/{name}"} for name in names]
    async with connect(plain_server(env=env)) as harness:
        assert {name: f"/nowhere/{name}" for name in names}.items() <= json.loads(await harness.call("env")).items()
        guard = look_at(await harness.call("pid"), "stat").rpartition(")")[2].split()[1]
        assert look_at(guard, "environ") == "LC_ALL=C.UTF-8\0"
        assert "/nowhere/" not in look_at(guard, "cmdline")


async def test_an_environment_may_be_large_and_odd(tmp_path: Path) -> None:
    (tmp_path / "their-python").symlink_to(sys.executable)
    values = {f"LARGE_{number}": str(number) * 30_000 for number in range(10)}
    values |= {"LINES": "a\nb=c\n", "EMPTY": "", "UMLAUT": "\xfc"}
    env = [{"name": name, "value": value} for name, value in {**values, "PATH": f"{tmp_path}:/usr/bin"}.items()]
    server = plain_server(env=env)
    server.spec.command = "their-python"  # is looked for in the server's PATH, not in ours
    async with connect(server) as harness:
        assert values.items() <= json.loads(await harness.call("env")).items()


async def test_a_result_is_not_checked_by_its_servers_expressions() -> None:
    """This one takes half a minute to find out that the text does not fit it, and nothing else runs meanwhile."""
    before = time.process_time()
    async with connect(plain_server("--pattern", "^(a+)+$")) as harness:
        text = "a" * 28 + "!"
        assert await harness.call("echo", text=text) == text
    assert time.process_time() - before < 3.0


async def test_a_server_whose_start_is_given_up_has_ended_with_its_connection() -> None:
    before = children()
    for moment in range(0, 12_000, 250):
        async with connect(plain_server()) as harness:
            with anyio.move_on_after(moment / 1_000_000):
                await harness.connected()
        assert children() == before, f"stopped {moment} µs after its start began"


def children() -> set[int]:
    """The processes that this one has started and has not seen the end of."""
    return {child.pid for child in psutil.Process().children()}


async def test_stop_ends_the_whole_tree(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with connect(plain_server("--stubborn", "--offspring", str(pids))) as harness:
        await harness.connected()
        await eventually(pids.exists)
        family = [int(pid) for pid in pids.read_text().split()]
        assert all(is_alive(pid) for pid in family)
    await eventually(lambda: not any(is_alive(pid) for pid in family))


async def test_a_message_without_an_end_is_cut_off_and_the_server_restarted() -> None:
    async with connect(plain_server()) as harness:
        first = await harness.call("pid")
        with pytest.raises(ConnectionLostError, match="sent more than 16,777,216 bytes that are not, or not yet"):
            await harness.call("flood", bytes=20_000_000)
        assert (await harness.failed()).error.startswith("the server sent more than")
        assert await harness.call("pid") != first
        assert len(await harness.call("flood", bytes=10_000_000)) == 10_000_000


async def test_noise_without_an_end_is_a_failure_that_says_so() -> None:
    async with connect(plain_server("--noise")) as harness:
        assert (await harness.failed()).error.startswith("the server sent more than 16,777,216 bytes")


@pytest.mark.parametrize(
    ("size", "told"), [(1_000, r"1,001 requests, of [\d,]+ bytes"), (200_000, r"[\d,]+ requests, of 1[67],\d{3},\d{3}")]
)
async def test_a_server_that_asks_and_never_reads_the_answers_is_ended(size: int, told: str) -> None:
    async with connect(plain_server("--pester", str(size)), timing=Timing(first_retry=30.0)) as harness:
        failure = await harness.failed(3 * PATIENCE)  # until then it has to send a thousand, or 16 MiB
        assert re.match(rf"the server sent {told}.* and took no answer to them\.$", failure.error)


async def test_a_server_may_ask_as_often_as_it_likes() -> None:
    async with connect(plain_server("--ask")) as harness:
        assert await harness.call("ask", times=1500) == "answered"
        assert await harness.call("echo", text="still fine") == "still fine"


async def test_a_server_that_does_not_list_its_tools_is_given_up() -> None:
    timing = type(FAST)(listing=0.5, first_retry=30.0)
    async with connect(plain_server("--no-list"), timing=timing) as harness:
        assert (await harness.failed()).error == "the server did not list its tools within 0.5 seconds."


async def test_a_list_without_an_end_is_read_until_it_is_too_long_for_a_status() -> None:
    async with connect(plain_server("--pages", "100000")) as harness:
        await harness.connected()
        assert (
            MAX_TOOLS_BYTES < sum(len(tool.model_dump_json()) for tool in harness.state.tools) < 2.2 * MAX_TOOLS_BYTES
        )
        plan = decide_status(plain_server(), harness.state, None, elapsed=0, now=now())
        assert plan.event is not None
        assert plan.event.reason == "TooManyTools"


async def test_what_a_list_no_longer_has_is_not_kept() -> None:
    async with connect(plain_server("--pages", "100000", "--restless")) as harness:
        await harness.connected()
        first = len(harness.state.tools)
        await eventually(lambda: int(harness.state.tools[0].name.removeprefix("tool-")) > 5 * first)
        assert harness.connection._session is not None
        kept = harness.connection._session._client.session._tool_output_schemas
        assert len(kept) <= 2 * first  # a list may be under way


async def test_text_that_is_no_unicode_arrives_with_marks_in_its_place() -> None:
    async with connect(plain_server()) as harness:
        assert await harness.call("odd") == "half \ufffd, stray \ufffd, nul \0, whole \U0001f600"
