"""Fixtures; what tests call by name is in web_testbed, which importlib mode does not find by itself."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from web_testbed import World, open_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """The service, with a webhook channel "hook" and a Slack channel "team" in the namespaces default and other."""
    async with open_world() as opened:
        yield opened
