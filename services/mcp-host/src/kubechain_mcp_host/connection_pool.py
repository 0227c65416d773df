"""One ServerConnection per MCPServer, each in a task of its own: a slow download of one holds up no other.

Every replica of this service has its own connections, because every one of them takes calls.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.kube.errors import ForbiddenError, KubeError
from kubechain_common.kube.informer import Change, Key
from kubechain_common.kube.secrets import SecretWatcher
from kubechain_common.telemetry.logging import get_logger
from kubechain_mcp_host.connection import ServerConnection
from kubechain_mcp_host.connection_spec import secret_names
from kubechain_mcp_host.connection_state import ConnectionState, Phase, Timing
from kubechain_mcp_host.errors import SecretMissingError
from kubechain_mcp_host.metrics import CONNECTIONS
from kubechain_mcp_host.stdio_launch import StdioLauncher

log = get_logger(__name__)

_SECRET_RETRY_SECONDS = 1.0


class ConnectionPool:
    """Follows the MCPServers (``handle_change``) and their Secrets; ``run`` keeps the connections."""

    def __init__(self, secrets: SecretWatcher, launcher: StdioLauncher, timing: Timing | None = None) -> None:
        self._secrets = secrets
        self._launcher = launcher
        self._timing = timing
        self._connections: dict[str, ServerConnection] = {}
        self._handlers: list[Callable[[Key], None]] = []
        self._new: asyncio.Queue[ServerConnection] = asyncio.Queue()
        secrets.add_handler(self._handle_secret)

    def add_handler(self, handler: Callable[[Key], None]) -> None:
        """Calls ``handler`` with the MCPServer's key after every change of its connection."""
        self._handlers.append(handler)

    def get(self, uid: str) -> ServerConnection | None:
        """The connection of the MCPServer with that uid; None once it is deleted."""
        return self._connections.get(uid)

    async def wait_known(self, uid: str) -> None:
        """Returns once it is known whether this replica can connect to that MCPServer, or once it is deleted."""
        connection = self._connections.get(uid)
        if connection is not None:
            await connection.wait_known()

    def state_of(self, server: MCPServer) -> ConnectionState | None:
        connection = self._connections.get(server.uid)
        return connection.state if connection else None

    def handle_change(self, change: Change[MCPServer]) -> None:
        """Informer handler."""
        server = change.new
        if server is None or server.metadata.deleting:
            self._remove(change.obj)
            return
        self._secrets.set_references(server.uid, {(server.namespace, name) for name in secret_names(server)})
        connection = self._connections.get(server.uid)
        if connection is not None:
            connection.update(server)
            return
        connection = ServerConnection(
            server, self._fetch_secrets, self._launcher, lambda: self._tell(server.key), self._timing
        )
        self._connections[server.uid] = connection
        self._new.put_nowait(connection)

    async def run(self, closing: asyncio.Event) -> None:
        """Keeps the connections until ``closing`` is set; returns when every process has ended."""
        async with asyncio.TaskGroup() as group:
            starter = group.create_task(self._start_all(group))
            await closing.wait()
            starter.cancel()
            for connection in self._connections.values():
                connection.stop()

    async def _start_all(self, group: asyncio.TaskGroup) -> None:
        while True:
            group.create_task(self._run_one(await self._new.get()))

    async def _run_one(self, connection: ServerConnection) -> None:
        while True:
            try:
                await connection.run()
            except Exception:  # a bug met by one server must not end the others
                log.exception("connection task failed, starting it again")
                await asyncio.sleep(_SECRET_RETRY_SECONDS)
            else:
                break
        if connection.server.uid not in self._connections:
            await self._launcher.forget(connection.server.uid)

    def _remove(self, server: MCPServer) -> None:
        self._secrets.set_references(server.uid, set())
        connection = self._connections.pop(server.uid, None)
        if connection is not None:
            connection.stop()

    def _handle_secret(self, namespace: str, name: str) -> None:
        for connection in self._connections.values():
            if connection.server.namespace == namespace and name in secret_names(connection.server):
                connection.secrets_changed()

    async def _fetch_secrets(self, server: MCPServer) -> dict[str, dict[str, str] | None]:
        return {name: await self._fetch_secret(server, name) for name in secret_names(server)}

    async def _fetch_secret(self, server: MCPServer, name: str) -> dict[str, str] | None:
        while True:
            try:
                return await self._secrets.read(server.namespace, name)
            except ForbiddenError:
                raise SecretMissingError(
                    f'Secret "{name}" must not be read by mcp-host: grant its ServiceAccount get and watch on it.'
                ) from None
            except KubeError as error:
                log.debug("cannot read a secret, retrying", namespace=server.namespace, name=name, error=str(error))
                await asyncio.sleep(error.retry_after or _SECRET_RETRY_SECONDS)

    def _tell(self, key: Key) -> None:
        counts = Counter(connection.state.phase for connection in self._connections.values())
        for phase in Phase:
            CONNECTIONS.labels(phase.value).set(counts[phase])
        for handler in self._handlers:
            handler(key)
