"""Fixtures; what tests call by name is in mcp_testbed, which importlib mode does not find by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mcp_testbed import RemoteServer


@pytest.fixture
def remote() -> Iterator[Callable[[str], RemoteServer]]:
    """Starts a RemoteServer of the given transport; all are ended with the test."""
    started: list[RemoteServer] = []

    def start(transport: str) -> RemoteServer:
        server = RemoteServer(transport)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()
