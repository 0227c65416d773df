"""Readiness probes: one GET over http(s), or one TCP connect.

Written on bare asyncio streams: importing an HTTP client would cost the supervisor more than starting etcd does.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from dataclasses import dataclass
from pathlib import Path

PROBE_TIMEOUT = 2.0


@dataclass(frozen=True)
class HttpProbe:
    """Ready when GET ``path`` on 127.0.0.1 answers 200; ``ca_file`` makes it https."""

    port: int
    path: str
    ca_file: Path | None = None

    async def check(self) -> bool:
        context = _context(self.ca_file) if self.ca_file else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        try:
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            status = await reader.readline()
        finally:
            writer.close()
        return status.split(b" ")[1:2] == [b"200"]


@dataclass(frozen=True)
class TcpProbe:
    """Ready when 127.0.0.1 accepts a connection at the port."""

    port: int

    async def check(self) -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        return True


Probe = HttpProbe | TcpProbe


async def is_ready(probe: Probe | None) -> bool:
    """Whether the probe succeeds now, within PROBE_TIMEOUT seconds. No probe: ready as soon as it runs."""
    if probe is None:
        return True
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            return await probe.check()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


@functools.cache
def _context(ca_file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca_file))
