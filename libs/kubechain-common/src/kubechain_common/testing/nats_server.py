"""A real nats-server for tests: JetStream on a free port, storage of its own; it can be killed and robbed."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NatsServer:
    """One server process at a time, always on the same port."""

    def __init__(self, directory: Path, config: str = "") -> None:
        self._storage = directory / "storage"
        self._directory = directory
        self._config = directory / "nats.conf"
        self._text = config
        self._process: asyncio.subprocess.Process | None = None
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"

    def configure(self, config: str) -> None:
        """What its configuration file holds from the next start on."""
        self._text = config

    async def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            f'host: 127.0.0.1\nport: {self.port}\njetstream {{ store_dir: "{self._storage}" }}\n{self._text}\n',
            encoding="utf-8",
        )
        binary = shutil.which("nats-server") or str(Path(sys.executable).with_name("nats-server"))
        self._process = await asyncio.create_subprocess_exec(
            binary, "-c", str(self._config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(15):
            while not await self._accepts():  # noqa: ASYNC110 - another process cannot set an event
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """kill -9, as a crash does."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    def wipe(self) -> None:
        """Delete everything that it stored."""
        shutil.rmtree(self._storage, ignore_errors=True)

    async def lose_storage(self) -> None:
        """Crash, and come back empty."""
        await self.kill()
        self.wipe()
        await self.start()

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.send_signal(number)
            await process.wait()

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


@asynccontextmanager
async def run_nats_server(directory: Path, config: str = "") -> AsyncIterator[NatsServer]:
    """A running server; ``config`` is added to its configuration file."""
    server = NatsServer(directory, config)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
