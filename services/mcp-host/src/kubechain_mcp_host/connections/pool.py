"""One ServerConnection per MCPServer, each in a task of its own: a slow download of one holds up no other.

Every replica of this service has its own connections, because every one of them takes calls. Only a server with
``session: Shared`` is connected by one replica alone: by the one that ``host``s it. More connections to a server, one
for each Task that has a session of its own, are opened with ``open``.
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
from kubechain_mcp_host.connections.connection import ServerConnection
from kubechain_mcp_host.connections.state import ConnectionState, Phase, Timing
from kubechain_mcp_host.errors import SecretMissingError
from kubechain_mcp_host.metrics import CONNECTIONS
from kubechain_mcp_host.spec.connection_spec import secret_names
from kubechain_mcp_host.stdio.launch import StdioLauncher

log = get_logger(__name__)

_SECRET_RETRY_SECONDS = 1.0


class ConnectionPool:
    """Follows the MCPServers (``handle_change``) and their Secrets; ``run`` keeps the connections."""

    def __init__(self, secrets: SecretWatcher, launcher: StdioLauncher, timing: Timing | None = None) -> None:
        self._secrets = secrets
        self._launcher = launcher
        self._timing = timing
        self._servers: dict[str, MCPServer] = {}
        self._connections: dict[str, ServerConnection] = {}
        self._others: set[ServerConnection] = set()
        self._handlers: list[Callable[[Key], None]] = []
        self._new: asyncio.Queue[ServerConnection] = asyncio.Queue()
        secrets.add_handler(self._handle_secret)

    def add_handler(self, handler: Callable[[Key], None]) -> None:
        """Calls ``handler`` with the MCPServer's key after every change of its connection."""
        self._handlers.append(handler)

    def get(self, uid: str) -> ServerConnection | None:
        """The connection of the MCPServer with that uid; None once it is deleted, or while it is another's."""
        return self._connections.get(uid)

    def server(self, uid: str) -> MCPServer | None:
        """The MCPServer, unless it is deleted."""
        return self._servers.get(uid)

    def host(self, server: MCPServer) -> ServerConnection:
        """Connects to a server that is connected by one replica alone, which is this one."""
        return self._connect(self._servers.get(server.uid, server))

    async def give_up(self, uid: str) -> None:
        """Closes the connection that ``host`` opened; returns once its process has ended."""
        connection = self._connections.pop(uid, None)
        if connection is not None:
            connection.stop()
            await connection.wait_ended()
            self._tell(connection.server.key)

    def open(self, server: MCPServer) -> ServerConnection:
        """Opens one more connection, which others do not use; ``close`` closes it."""
        connection = self._build(self._servers.get(server.uid, server), lambda: None)
        self._others.add(connection)
        return connection

    def close(self, connection: ServerConnection) -> None:
        """Closes a connection that ``open`` gave; its process ends soon."""
        self._others.discard(connection)
        connection.stop()

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
        self._servers[server.uid] = server
        self._secrets.set_references(server.uid, {(server.namespace, name) for name in secret_names(server)})
        for connection in self._each(server.uid):
            connection.update(server)
        if server.spec.session != "Shared":
            self._connect(server)

    def _connect(self, server: MCPServer) -> ServerConnection:
        connection = self._connections.get(server.uid)
        if connection is None:
            connection = self._connections[server.uid] = self._build(server, lambda: self._tell(server.key))
        return connection

    def _build(self, server: MCPServer, on_change: Callable[[], None]) -> ServerConnection:
        connection = ServerConnection(server, self._fetch_secrets, self._launcher, on_change, self._timing)
        self._new.put_nowait(connection)
        return connection

    def _each(self, uid: str) -> list[ServerConnection]:
        return [c for c in (*self._connections.values(), *self._others) if c.server.uid == uid]

    async def run(self, closing: asyncio.Event) -> None:
        """Keeps the connections until ``closing`` is set; returns when every process has ended."""
        async with asyncio.TaskGroup() as group:
            starter = group.create_task(self._start_all(group))
            await closing.wait()
            starter.cancel()
            for connection in (*self._connections.values(), *self._others):
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
        if connection.server.uid not in self._servers:
            await self._launcher.forget(connection.server.uid)

    def _remove(self, server: MCPServer) -> None:
        self._secrets.set_references(server.uid, set())
        self._servers.pop(server.uid, None)
        for connection in self._each(server.uid):
            self._others.discard(connection)
            connection.stop()
        self._connections.pop(server.uid, None)

    def _handle_secret(self, namespace: str, name: str) -> None:
        for connection in (*self._connections.values(), *self._others):
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
