"""Waiting for whichever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def wait_any(*events: asyncio.Event) -> None:
    """Returns once one of the events is set."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(_wait(event)) for event in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


async def wait_any_for(seconds: float, *events: asyncio.Event) -> None:
    """Returns once one of the events is set, at most after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await wait_any(*events)
    except TimeoutError:
        return


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def run_unless(event: asyncio.Event, work: Awaitable[T]) -> T | None:
    """What comes of the work; None if the event is set first, and then the work is cancelled."""
    outcome: list[T] = []
    failure: list[Exception] = []

    async def run() -> None:
        try:
            outcome.append(await work)
        except Exception as error:
            failure.append(error)

    async with asyncio.TaskGroup() as group:
        running, waiting = group.create_task(run()), group.create_task(_wait(event))
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        waiting.cancel()
    if failure:
        raise failure[0]
    return outcome[0] if outcome else None
