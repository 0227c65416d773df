"""The reader of the NATS connection outlives what its callers give up on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kubechain_common.messages.topology import TOOL_RESULTS, tool_result_subject
from kubechain_common.messaging import Bus
from kubechain_common.testing.nats_server import run_nats_server

pytestmark = pytest.mark.integration

HEARD_SECONDS = 10.0
"""A deaf connection is found out after two pings, 40 s."""


async def test_a_flush_that_was_cancelled_leaves_the_connection_able_to_hear(tmp_path: Path) -> None:
    async with run_nats_server(tmp_path) as server, Bus.connect(server.url, "test") as bus:
        async with asyncio.TaskGroup() as group:
            flush = group.create_task(bus.connection.nc.flush())
            await asyncio.sleep(0)  # the PING is on its way
            flush.cancel()
        async with asyncio.timeout(HEARD_SECONDS):
            assert not await bus.has_message(TOOL_RESULTS.name, tool_result_subject("default", "nobody"))
            await bus.connection.nc.flush()
