from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from prometheus_client import REGISTRY

from kubechain_common.kube.controller import DRAIN_SECONDS, Controller, Key, Result
from kubechain_common.kube.errors import ConflictError, UnavailableError

RunVirtual = Callable[[Coroutine[Any, Any, Any]], Any]
KEY = ("ns", "a")


def now() -> float:
    return asyncio.get_running_loop().time()


class Script:
    """A reconcile whose outcomes are given in advance; notes when it ran."""

    def __init__(self, *outcomes: Result | Exception | None) -> None:
        self._outcomes = list(outcomes)
        self.ran_at: list[float] = []
        self.exhausted = asyncio.Event()

    async def reconcile(self, key: Key) -> Result | None:
        self.ran_at.append(now())
        outcome = self._outcomes.pop(0)
        if not self._outcomes:
            self.exhausted.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def play(script: Script, name: str) -> Controller:
    controller = Controller(name, script.reconcile, workers=2)
    async with asyncio.TaskGroup() as group:
        group.create_task(controller.run())
        controller.queue.add(KEY)
        await script.exhausted.wait()
        controller.queue.shut_down()
    return controller


def total(controller: str, result: str) -> float:
    return REGISTRY.get_sample_value("kubechain_reconcile_total", {"controller": controller, "result": result}) or 0.0


def test_errors_are_survived_and_retried_with_a_growing_delay(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        script = Script(ValueError("bad"), ValueError("bad"), ConflictError("stale"), None)
        await play(script, "t-errors")
        assert len(script.ran_at) == 4
        assert script.ran_at[-1] < 0.05

    run_virtual(scenario())
    assert (total("t-errors", "error"), total("t-errors", "conflict"), total("t-errors", "success")) == (2, 1, 1)


def test_success_ends_the_back_off_and_may_ask_for_another_run(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        bad = [ValueError("bad")] * 8
        script = Script(*bad, Result(requeue_after=30), ValueError("bad"), None)
        await play(script, "t-after")
        *_, before, failed_again, last = script.ran_at
        assert failed_again - before == pytest.approx(30)
        assert last - failed_again <= 0.005, "as after a first failure"

    run_virtual(scenario())
    assert total("t-after", "requeue_after") == 1


def test_the_servers_retry_after_is_honoured(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        script = Script(UnavailableError("busy", retry_after=4), None)
        await play(script, "t-busy")
        assert script.ran_at[1] >= 4

    run_virtual(scenario())


def test_one_key_is_serial_while_others_run_beside_it(run_virtual: RunVirtual) -> None:
    running: list[Key] = []
    most = 0

    async def reconcile(key: Key) -> None:
        nonlocal most
        assert key not in running
        running.append(key)
        most = max(most, len(running))
        await asyncio.sleep(1)
        running.remove(key)

    async def scenario() -> None:
        controller = Controller("t-serial", reconcile, workers=4)
        async with asyncio.TaskGroup() as group:
            group.create_task(controller.run())
            for step in range(3):
                for name in ("a", "b"):
                    controller.queue.add(("ns", name))
                await asyncio.sleep(0.5 + step)
            await asyncio.sleep(5)
            controller.queue.shut_down()

    run_virtual(scenario())
    assert most == 2


@pytest.mark.parametrize(("seconds", "finished"), [(DRAIN_SECONDS - 1, True), (DRAIN_SECONDS + 100, False)])
def test_cancellation_lets_a_running_reconcile_end_but_not_for_ever(
    run_virtual: RunVirtual, seconds: float, finished: bool
) -> None:
    ended: list[Key] = []

    async def reconcile(key: Key) -> None:
        await asyncio.sleep(seconds)
        ended.append(key)

    async def scenario() -> float:
        controller = Controller("t-drain", reconcile)
        async with asyncio.TaskGroup() as group:
            run = group.create_task(controller.run())
            controller.queue.add(KEY)
            await asyncio.sleep(0.1)
            run.cancel()
        return now()

    assert run_virtual(scenario()) <= DRAIN_SECONDS + 0.2
    assert bool(ended) is finished
