"""mcp-host: keeps MCP servers connected, executes tool calls, and reports both.

Every replica has all connections and takes calls; the one with the Lease writes the status of the MCPServers. Servers
that want sessions are shared among the replicas (``sessions``).
"""

from __future__ import annotations

import asyncio
import logging
import os

from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer
from kubechain_common.kube.informer import Informer
from kubechain_common.kube.secrets import SecretWatcher
from kubechain_common.messages.topology import TOOL_REQUESTS
from kubechain_common.messaging import Room
from kubechain_common.runtime.leadership import build_elector, run_led
from kubechain_common.runtime.service import ServiceContext, run_service
from kubechain_common.telemetry.logging import get_logger
from kubechain_mcp_host.calls.handler import CallHandler
from kubechain_mcp_host.calls.worker import CallWorkers
from kubechain_mcp_host.connections.pool import ConnectionPool
from kubechain_mcp_host.mcpserver_reconciler import BY_CHANNEL, CONTROLLER, MCPServerReconciler, channel_of
from kubechain_mcp_host.sessions.sessions import Sessions
from kubechain_mcp_host.settings import MCPHostSettings
from kubechain_mcp_host.stdio.environment import build_base_environment, split_list
from kubechain_mcp_host.stdio.isolation import plan_isolation
from kubechain_mcp_host.stdio.launch import StdioLauncher

log = get_logger(__name__)

NAME = "mcp-host"
CLOSING_SECONDS = 5.0
"""Seconds of the time to drain that are left for the servers' processes, once their last calls have ended."""


def main() -> None:
    """The console script."""
    run_service(NAME, start, takes_from=[TOOL_REQUESTS])


async def start(context: ServiceContext) -> None:
    """Runs until ``context.stopping``, then lets running calls end before it closes the connections that they use."""
    quieten_sdk()
    settings = MCPHostSettings()
    launcher = build_launcher(settings, context.settings.nats_url)
    secrets = SecretWatcher(context.kube)
    namespace = context.settings.watch_namespace
    informer = Informer(context.kube, MCPServer, namespace=namespace, indexers={BY_CHANNEL: channel_of})
    channels = Informer(context.kube, ContactChannel, namespace=namespace)
    pool = ConnectionPool(secrets, launcher)
    grace = max(1.0, context.settings.drain_seconds - CLOSING_SECONDS)
    room = Room(settings.max_calls)
    sessions = Sessions(
        context.bus,
        pool,
        context.recorder.for_component(CONTROLLER),
        context.stopping,
        pod=context.identity,
        idle_seconds=settings.session_idle_seconds,
        grace=grace,
    )
    handler = CallHandler(context.bus, pool, sessions, room, context.stopping)
    workers = CallWorkers(context.bus, handler, pool.wait_known, grace=grace, room=room)
    for handle_change in (pool.handle_change, workers.handle_change, sessions.handle_change):
        informer.add_handler(handle_change)
    reconciler = MCPServerReconciler(context.kube, informer, channels, pool, sessions.shared.hosts, context.recorder)
    closing = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(coroutine)
            for coroutine in (secrets.run(), reconciler.tend(), forget_leftovers(informer, launcher))
        ]
        leading = group.create_task(
            run_led(context, build_elector(context, NAME), [informer, channels], reconciler.lead)
        )
        hosting = group.create_task(sessions.run(workers, handler.handle_in))
        group.create_task(pool.run(closing))
        await workers.run(context.stopping)
        await asyncio.wait({leading, hosting})
        closing.set()
        for task in background:
            task.cancel()


def build_launcher(settings: MCPHostSettings, nats_url: str) -> StdioLauncher:
    environment = build_base_environment(os.environ, split_list(settings.env_passthrough))
    if settings.isolation == "none":
        return StdioLauncher(environment)
    isolation = plan_isolation(
        os.environ,
        data=settings.data,
        extra_readable=split_list(settings.readable),
        nats_url=nats_url,
        min_abi=settings.landlock_abi,
    )
    if isolation.obstacle:
        log.error("no stdio server will be started", reason=isolation.obstacle)
    return StdioLauncher(environment, isolation)


async def forget_leftovers(informer: Informer[MCPServer], launcher: StdioLauncher) -> None:
    """Removes what servers left behind that were deleted while this process did not run."""
    await informer.wait_synced()
    await launcher.forget_others({server.uid for server in informer.list()})


def quieten_sdk() -> None:
    """Keeps the SDK from logging what a server sends and where it is reached, word for word; none of that belongs in
    our log.
    """
    for name in ("mcp", "client", "httpx2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


if __name__ == "__main__":
    main()
