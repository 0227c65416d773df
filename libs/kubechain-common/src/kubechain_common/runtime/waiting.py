"""Waiting for whichever comes first."""

from __future__ import annotations

import asyncio


async def wait_any(*events: asyncio.Event) -> None:
    """Returns once one of the events is set."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(_wait(event)) for event in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
