"""One MCPServer's connection, over all its lives: connect, list the tools, notice changes, reconnect.

ONE task owns the connection: it enters and leaves the SDK's client (which demands that of a task); everything else
sets flags and wakes it. Each life is wrapped in a cancel scope, so that an attempt that hangs (a slow download, a
dead host) is given up at once when the spec changes or the server is deleted. Its end is a chain of closed contexts,
at whose bottom the guard ends every process; a server that hangs can not hold it up for long, because the end has a
deadline too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import anyio
from mcp import Client, MCPError
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.telemetry.logging import get_logger
from kubechain_mcp_host.connections.dialing import Attempt
from kubechain_mcp_host.connections.relisting import Relisting
from kubechain_mcp_host.connections.state import ConnectionState, Phase, Timing
from kubechain_mcp_host.connections.tool_session import ToolSession, ends_connection, list_tools
from kubechain_mcp_host.errors import (
    ConnectFailedError,
    ConnectionLostError,
    ConnectionSpecError,
    ServerUnavailableError,
)
from kubechain_mcp_host.metrics import CONNECTION_FAILURES
from kubechain_mcp_host.spec.connection_spec import ConnectionSpec, resolve_connection, secret_names
from kubechain_mcp_host.stdio.launch import StdioLauncher

log = get_logger(__name__)

FetchSecrets = Callable[[MCPServer], Awaitable[Mapping[str, Mapping[str, str] | None]]]
"""Reads the Secrets that an MCPServer refers to, by name; None stands for one that does not exist.

Raises ConnectionSpecError when they must not be read.
"""

_LISTEN_AGAIN_SECONDS = 1.0
_STABLE_SECONDS = 10.0
"""How long a connection has to last for its loss to count as the first one."""


class ServerConnection:
    """``run`` owns the connection until ``stop``; ``on_change`` is called after every change of ``state``."""

    def __init__(
        self,
        server: MCPServer,
        fetch_secrets: FetchSecrets,
        launcher: StdioLauncher,
        on_change: Callable[[], None],
        timing: Timing | None = None,
    ) -> None:
        self.server = server
        self._fetch_secrets = fetch_secrets
        self._launcher = launcher
        self._on_change = on_change
        self._timing = timing or Timing()
        self._spec: ConnectionSpec | ConnectionSpecError | None = None
        self._session: ToolSession | None = None
        self.lives = 0
        """How often the connection was opened."""
        self._scope: anyio.CancelScope | None = None
        self._stopped = False
        self._start_over = False
        self._relisting: Relisting | None = None
        self._poked = asyncio.Event()
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self.state = ConnectionState(since=time.monotonic(), generation=server.metadata.generation)

    def update(self, server: MCPServer) -> None:
        """Takes a new version of the MCPServer in; reconnects only if that one connects differently."""
        self.server = server
        self._poked.set()

    def secrets_changed(self) -> None:
        self._poked.set()

    def stop(self) -> None:
        """Ends the connection and every process of it; ``run`` returns after that."""
        self._stopped = True
        self._wake.set()
        if self._scope is not None:
            self._scope.cancel()
        self._tell()

    async def wait_session(self, seconds: float) -> ToolSession:
        """The open session. Raises ServerUnavailableError when there is none within ``seconds``, or never again."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    if self._stopped:
                        raise ServerUnavailableError(f'MCPServer "{self.server.name}" was deleted.')
                    session = self._session
                    # A session that has just broken stays in place for as long as its process takes to end.
                    if session is not None and session.open and not (session.in_doubt or self._start_over):
                        return session
                    await self._changed.wait()
        except TimeoutError:
            why = self.state.error or "it is still connecting."
            raise ServerUnavailableError(
                f'MCPServer "{self.server.name}" was not connected within {seconds:g} seconds: {why}'
            ) from None

    async def wait_known(self) -> None:
        """Returns once the first attempt to connect has come to something, good or bad, or was given up."""
        while self.state.phase is Phase.CONNECTING and not self._stopped:
            await self._changed.wait()

    async def wait_ended(self) -> None:
        """Returns once the connection was stopped, and every process of it has ended."""
        while self.state.phase is not Phase.STOPPED:
            await self._changed.wait()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            follower = group.create_task(self._follow_spec())
            try:
                await self._own()
            finally:
                follower.cancel()
                self._publish(ConnectionState(Phase.STOPPED, error="it was stopped."))

    # What the spec asks for.

    async def _follow_spec(self) -> None:
        while True:
            self._poked.clear()
            generation = self.server.metadata.generation
            spec = await self._resolve()
            if spec != self._spec:
                self._spec, self._start_over = spec, True
                self._wake.set()
                if self._session is None and self._scope is not None:
                    self._scope.cancel()
            elif self.state.generation != generation:
                self._publish(replace(self.state, generation=generation))
            await self._poked.wait()

    async def _resolve(self) -> ConnectionSpec | ConnectionSpecError:
        server = self.server
        try:
            secrets = await self._fetch_secrets(server) if secret_names(server) else {}
            spec = resolve_connection(server, secrets.get)
            self._launcher.check(spec)
        except ConnectionSpecError as error:
            # The same trouble again is no change.
            known = self._spec
            return known if isinstance(known, ConnectionSpecError) and str(known) == str(error) else error
        return spec

    # The owner's lives.

    async def _own(self) -> None:
        failures = 0
        while not self._stopped:
            self._wake.clear()
            spec, self._start_over = self._spec, False
            if not isinstance(spec, ConnectionSpec):
                if spec is not None:
                    self._set(Phase.BLOCKED, error=str(spec), reason=spec.reason)
                await self._wake.wait()
                continue
            opened_at = await self._live(spec, failures)
            if self._stopped or self._start_over:
                failures = 0
                continue
            if opened_at is not None and time.monotonic() - opened_at >= _STABLE_SECONDS:
                failures = 0
            await self._pause(failures)
            failures += 1

    async def _pause(self, failures: int) -> None:
        delay = min(self._timing.first_retry * 2 ** min(failures, 20), self._timing.last_retry)
        try:
            async with asyncio.timeout(delay * random.uniform(0.8, 1.2)):
                while not (self._stopped or self._start_over):
                    await self._wake.wait()
                    self._wake.clear()
        except TimeoutError:
            return

    async def _live(self, spec: ConnectionSpec, failures: int) -> float | None:
        """One life of the connection. Returns when it was opened (monotonic), None if it never was."""
        if failures == 0 and not self.state.lost:
            self._set(Phase.CONNECTING)
        limit = self._timing.stdio_connect if spec.transport == "stdio" else self._timing.http_connect
        self._relisting = self._build_relisting(spec)
        attempt = Attempt(spec, self._launcher, on_close=self._wake.set, on_tools_changed=self._want_relist)
        opened_at: float | None = None
        cause: Exception = ConnectFailedError(f"the server did not answer within {limit:g} seconds.")
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + limit) as scope:
                self._scope = scope
                async with AsyncExitStack() as stack:
                    client = await attempt.open(stack)
                    try:
                        cause = ConnectFailedError(
                            f"the server did not list its tools within {self._timing.listing:g} seconds."
                        )
                        scope.deadline = anyio.current_time() + self._timing.listing
                        tools = await list_tools(client)
                        session = ToolSession(
                            client, attempt.watch, attempt.scrubber, tools, on_doubt=self._want_relist
                        )
                        cause = ConnectionLostError(session.why_lost)
                        scope.deadline = float("inf")
                        opened_at = time.monotonic()
                        await self._serve(client, session, attempt, self._relisting)
                    except Exception as error:
                        # When closing runs out of time, the scope swallows what went before.
                        cause = error
                        raise
                    finally:
                        # Without a session a new spec ends the closing at once.
                        self._session = None
                        scope.deadline = anyio.current_time() + self._timing.closing
        except Exception as error:
            cause = error
        finally:
            self._scope = None
        if not (self._stopped or self._start_over):
            CONNECTION_FAILURES.inc()
            self._set(
                Phase.FAILED,
                error=attempt.explain(cause),
                last_output=attempt.last_output,
                reason="ConnectionFailed",
                lost=opened_at is not None or self.state.lost,
                failures=failures + 1,
            )
        return opened_at

    # An open connection.

    async def _serve(self, client: Client, session: ToolSession, attempt: Attempt, relisting: Relisting) -> None:
        """Serves calls until the server hangs up (ConnectionLostError) or the spec asks for another connection."""
        self._session = session
        self.lives += 1
        self._set(Phase.CONNECTED, tools=session.tools, protocol_version=session.protocol_version)
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen, client)
            while not (self._start_over or session.stuck):
                if attempt.watch.closed:
                    raise ConnectionLostError(session.why_lost)
                await self._woken(relisting.seconds_left(anyio.current_time()))
                if attempt.watch.closed or self._start_over or session.stuck:
                    continue
                if relisting.take(anyio.current_time(), busy=session.busy):
                    await self._list_again(client, session, relisting)
            with anyio.move_on_after(self._timing.drain):
                await session.wait_idle()
            group.cancel_scope.cancel()
        if session.stuck:
            raise ConnectionLostError(session.why_lost)

    async def _woken(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._wake.wait()
            self._wake.clear()

    def _build_relisting(self, spec: ConnectionSpec) -> Relisting:
        return Relisting(
            anyio.current_time(),
            spacing=self._timing.spacing,
            refresh=self._timing.refresh,
            refreshes=spec.transport == "http",
        )

    def _want_relist(self) -> None:
        if self._relisting is not None:
            self._relisting.want()
        self._wake.set()

    async def _list_again(self, client: Client, session: ToolSession, relisting: Relisting) -> None:
        busy, in_doubt = session.busy, session.in_doubt
        try:
            with anyio.fail_after(self._timing.listing):
                tools = await list_tools(client)
        except (MCPError, TimeoutError) as error:
            # The calls that run may be why: whether the server hangs is for their deadlines to tell.
            if ends_connection(error) or not (busy or session.busy):
                raise ConnectionLostError("the server no longer answers.") from error
            relisting.note_failure(anyio.current_time())
        else:
            relisting.note_answer(anyio.current_time())
            if tools != session.tools:
                session.tools = tools
                self._publish(replace(self.state, tools=tools))
        if in_doubt:  # and not since the list began: another one follows then
            session.in_doubt = False
            self._tell()

    async def _listen(self, client: Client) -> None:
        """Asks a server of the newer protocol for change notices; older ones send theirs unasked."""
        while True:
            try:
                async with client.listen(tools_list_changed=True) as subscription:
                    # Nothing is replayed: what changed before the subscription has to be asked for.
                    self._want_relist()
                    async for _ in subscription:
                        self._want_relist()
            except (ListenNotSupportedError, MCPError):
                return
            except SubscriptionLost:
                log.debug("subscription lost", mcp_server=self.server.name, namespace=self.server.namespace)
            await anyio.sleep(_LISTEN_AGAIN_SECONDS)

    def _set(self, phase: Phase, **details: Any) -> None:
        generation = self.server.metadata.generation
        self._publish(ConnectionState(phase, since=time.monotonic(), generation=generation, **details))

    def _publish(self, state: ConnectionState) -> None:
        if (state.phase, state.error) != (self.state.phase, self.state.error):
            log.info(
                "connection changed",
                phase=state.phase.value,
                mcp_server=self.server.name,
                namespace=self.server.namespace,
                **({"reason": state.error} if state.error else {"tools": len(state.tools)}),
            )
        self.state = state
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change()
