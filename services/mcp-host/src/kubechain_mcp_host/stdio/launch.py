"""How a stdio server is started: its environment, its folder, and what its guard is told."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from kubechain_common.telemetry.logging import get_logger
from kubechain_mcp_host.errors import ConnectFailedError, InvalidSpecError, IsolationError
from kubechain_mcp_host.guard import landlock
from kubechain_mcp_host.guard.orders import Orders
from kubechain_mcp_host.spec.connection_spec import ConnectionSpec
from kubechain_mcp_host.stdio.isolation import Isolation, is_below
from kubechain_mcp_host.stdio.server_home import ServerHomes, build_home_environment

log = get_logger(__name__)


@dataclass(frozen=True)
class Launch:
    """How a server's process is started; ``cwd`` None is our own working directory."""

    orders: Orders
    environment: Mapping[str, str]
    cwd: str | None = None


class StdioLauncher:
    """Prepares all stdio servers of this process; ``isolation`` None starts them like any other child of ours."""

    def __init__(self, base_environment: Mapping[str, str], isolation: Isolation | None = None) -> None:
        """``base_environment`` is what every server gets before its own ``spec.env``."""
        self._base_environment = dict(base_environment)
        self._isolation = isolation
        if isolation is not None:
            # Runners give up where they find a program that they must not read.
            path = (part for part in base_environment.get("PATH", "").split(":") if is_below(part, isolation.readable))
            self._base_environment["PATH"] = ":".join(path)
        self._homes = ServerHomes(isolation.data) if isolation else None
        self._ports: int | None = None
        self._making_ports = asyncio.Lock()

    def check(self, spec: ConnectionSpec) -> None:
        """Checks that the server can be started here as it has to be. Raises IsolationError or InvalidSpecError."""
        if spec.transport != "stdio":
            return
        if self._isolation is not None and self._isolation.obstacle:
            raise IsolationError(self._isolation.obstacle)
        if (spec.memory or spec.cpu) and sys.platform != "linux":
            raise InvalidSpecError(
                "Validation failed: spec.resources.limits need mcp-host to run on Linux; remove them to run without."
            )

    async def prepare(self, spec: ConnectionSpec) -> Launch:
        """What it takes to start the server. Raises ConnectFailedError when there is no such command, or no folder for
        the server.
        """
        own = dict(spec.env)
        if self._isolation is None or self._homes is None:
            environment = {**self._base_environment, **own}
            _find_command(spec.command, environment.get("PATH"))
            return Launch(Orders([spec.command, *spec.args], memory=spec.memory, cpu=spec.cpu), environment)
        readable = self._isolation.readable
        try:
            home = self._homes.make(spec.uid)
        except OSError as error:
            raise ConnectFailedError(
                f"no folder could be made for the server in {self._homes.root}: {error.strerror}. "
                "mcp-host has to be able to write there (KUBECHAIN_MCP_DATA)."
            ) from error
        environment = {**self._base_environment, **build_home_environment(home), **own}
        self._check_reach(_find_command(spec.command, environment["PATH"]), str(home), spec.command)
        orders = Orders(
            [spec.command, *spec.args],
            landlock=self._isolation.abi,
            seccomp=int(self._isolation.filtered),
            readable=readable,
            writable=(str(home),),
            ports=await self._port_rules(self._isolation),
            memory=spec.memory,
            cpu=spec.cpu,
        )
        return Launch(orders, environment, str(home))

    async def forget(self, uid: str) -> None:
        """Removes what the server of a deleted MCPServer has left in its folder."""
        if self._homes is not None:
            try:
                await asyncio.to_thread(self._homes.remove, uid)
            except Exception as error:  # what one server leaves behind must not end the others
                log.warning("the folder of a deleted server stays behind", uid=uid, error=str(error))

    async def forget_others(self, uids: Collection[str]) -> None:
        """Removes the folders of servers that were deleted while no replica looked; ``uids`` are those that exist."""
        for uid in self._homes.find_leftovers(uids) if self._homes else ():
            await self.forget(uid)

    def _check_reach(self, program: str, home: str, command: str) -> None:
        assert self._isolation is not None
        if not is_below(program, (*self._isolation.readable, home)):
            raise ConnectFailedError(
                f'command "{command}" is {os.path.realpath(program)}, which isolated servers can not reach: '
                "put it into the image below /usr or /opt, or add its folder to KUBECHAIN_MCP_READABLE."
            )

    async def _port_rules(self, isolation: Isolation) -> int:
        """The descriptor of a ruleset that all guards share: it is 65,535 rules."""
        async with self._making_ports:
            if self._ports is None:
                self._ports = await asyncio.to_thread(landlock.build_port_rules, isolation.abi, isolation.denied_ports)
        return self._ports


def _find_command(command: str, path: str | None) -> str:
    found = shutil.which(command, path=path)
    if found is None:
        where = "is not an executable file" if "/" in command else "was not found in PATH"
        hint = " Arguments of a command go into spec.args, one by one." if " " in command else ""
        raise ConnectFailedError(f'command "{command}" {where}.{hint}')
    return found
