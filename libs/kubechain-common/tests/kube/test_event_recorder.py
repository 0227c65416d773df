"""When Events are written, in virtual time; what they look like to kubectl is tested against a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube import event_recorder
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import ConflictError, KubeError, NotFoundError, UnavailableError
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.write_activity import WriteActivity

RunVirtual = Callable[[Coroutine[Any, Any, Any]], Any]


class RecordingClient:
    """Takes every write and remembers when it came."""

    def __init__(self) -> None:
        self.activity = WriteActivity()
        self.writes: list[tuple[float, str, dict[str, Any]]] = []
        self.failures: list[KubeError] = []
        self._written = asyncio.Condition()

    async def request(self, method: str, path: str, *, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        if self.failures:
            raise self.failures.pop()
        self.writes.append((asyncio.get_running_loop().time(), method, body))
        async with self._written:
            self._written.notify_all()
        return body

    async def wait_for(self, count: int) -> None:
        async with self._written:
            await self._written.wait_for(lambda: len(self.writes) >= count)


@asynccontextmanager
async def running() -> AsyncIterator[tuple[EventRecorder, RecordingClient]]:
    client = RecordingClient()
    recorder = EventRecorder(cast("KubeClient", client), "task-controller", now=virtual_now)
    async with asyncio.TaskGroup() as group:
        run = group.create_task(recorder.run())
        yield recorder, client
        run.cancel()


def virtual_now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=asyncio.get_running_loop().time())


def build_task(name: str) -> Task:
    # Created after the recorder, so that nothing can have been said about it before.
    metadata = {"namespace": "ns", "name": name, "uid": name, "creationTimestamp": "2999-01-01T00:00:00Z"}
    return Task.model_validate({"metadata": metadata, "spec": {"agentRef": {"name": "x"}, "userMessage": "m"}})


def test_what_repeats_within_a_moment_is_one_write_after_it(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        async with running() as (recorder, client):
            for _ in range(3):
                recorder.event(build_task("a"), "Normal", "Waiting", "no agent")
            await client.wait_for(1)
        ((at, method, body),) = client.writes
        assert (method, body["count"]) == ("POST", 3)
        assert at == pytest.approx(1.0, abs=0.2)

    run_virtual(scenario())


def test_a_burst_is_told_of_when_it_is_over(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        async with running() as (recorder, client):
            with client.activity.writing():
                for number in range(100):
                    recorder.event(build_task(f"t{number}"), "Normal", "Waiting", "no agent")
                await asyncio.sleep(5)
                assert client.writes == []
            await client.wait_for(100)
        assert client.writes[-1][0] < 6

    run_virtual(scenario())


def test_events_give_way_to_writes_that_follow_each_other(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        async with running() as (recorder, client):
            recorder.event(build_task("a"), "Normal", "Waiting", "no agent")
            for _ in range(100):
                with client.activity.writing():
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.03)
            assert client.writes == []
            await client.wait_for(1)
        assert client.writes[0][0] == pytest.approx(4.05, abs=0.05)

    run_virtual(scenario())


def test_work_that_does_not_end_is_told_of_slowly(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        async with running() as (recorder, client):
            for number in range(100):
                recorder.event(build_task(f"t{number}"), "Normal", "Waiting", "no agent")
            with client.activity.writing():
                await client.wait_for(100)
        first, last = client.writes[0][0], client.writes[-1][0]
        assert first >= 9
        assert last - first >= 1.5

    run_virtual(scenario())


def test_an_event_waits_for_an_api_server_that_is_away_for_long(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        async with running() as (recorder, client):
            client.failures = [UnavailableError("away")] * 100
            recorder.event(build_task("a"), "Normal", "Waiting", "no agent")
            await client.wait_for(1)
        assert client.failures == []

    run_virtual(scenario())


def test_an_event_that_is_refused_again_and_again_is_given_up(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        async with running() as (recorder, client):
            client.failures = [ConflictError("changed")] * 100
            recorder.event(build_task("a"), "Normal", "Waiting", "no agent")
            assert await recorder.flush(600)
        assert (len(client.failures), client.writes) == (80, [])

    run_virtual(scenario())


def test_flush_waits_for_no_moment(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        async with running() as (recorder, client):
            for number in range(100):
                recorder.event(build_task(f"t{number}"), "Normal", "Waiting", "no agent")
            assert await recorder.flush(0.5)
            assert len(client.writes) == 100
            assert asyncio.get_running_loop().time() < 0.5

    run_virtual(scenario())


def test_an_event_that_is_forgotten_here_and_by_the_api_server_at_once_is_written_anew(
    run_virtual: RunVirtual, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_recorder, "_MAX_KNOWN", 1)

    async def scenario() -> list[str]:
        async with running() as (recorder, client):
            take = client.request

            async def crowd_out(method: str, path: str, *, body: dict[str, Any], **options: Any) -> dict[str, Any]:
                written = await take(method, path, body=body, **options)
                if method == "PATCH":
                    recorder._writer._remember(client.writes[0][2])  # as the other worker does with its own
                    raise NotFoundError("an hour has passed")
                return written

            client.request = crowd_out  # type: ignore[method-assign]
            for count, name in enumerate(("other", "a", "a"), start=1):
                recorder.event(build_task(name), "Normal", "Waiting", "no agent")
                await client.wait_for(count)
                assert await recorder.flush(1.0)
        return [method for _, method, _ in client.writes]

    assert run_virtual(scenario()) == ["POST", "POST", "PATCH", "POST"]
