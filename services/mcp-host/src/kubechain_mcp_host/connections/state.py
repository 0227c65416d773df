"""What others may know of a server's connection, and how long things may take in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kubechain_common.api.v1alpha1.mcpserver import MCPTool

MAX_TOOLS_BYTES = 768 * 1024
"""Bytes of tool descriptions and schemas in a status; the API server takes no object over about 1.5 MB."""


@dataclass(frozen=True)
class Timing:
    """How long things may take, in seconds.

    A stdio server may have to be downloaded before it answers. ``refresh`` is how often a quiet HTTP server is listed
    again: nothing else tells that it has gone, or has new tools; ``spacing`` lies between two lists of any server;
    ``drain`` is how long running calls may hold up a reconnect that a new spec asks for; ``closing`` is what a server
    may take for its part in the end of a connection, such as the answer to the DELETE of its session.
    """

    stdio_connect: float = 300.0
    http_connect: float = 30.0
    first_retry: float = 0.2
    last_retry: float = 30.0
    refresh: float = 30.0
    listing: float = 30.0
    spacing: float = 1.0
    drain: float = 30.0
    closing: float = 5.0


class Phase(StrEnum):
    CONNECTING = "Connecting"
    CONNECTED = "Connected"
    FAILED = "Failed"
    BLOCKED = "Blocked"
    STOPPED = "Stopped"


@dataclass(frozen=True)
class ConnectionState:
    """What others may know of a connection. Blocked: the MCPServer, or a Secret, has to change first. Failed: the next
    attempt follows by itself.

    ``since`` is when the phase began (monotonic seconds), ``generation`` the MCPServer's that this speaks of;
    ``error`` is a sentence and ``last_output`` the end of a process's stderr, both free of secrets. ``lost`` says
    that the failure ended an open connection, ``failures`` counts those in a row.
    """

    phase: Phase = Phase.CONNECTING
    since: float = 0.0
    generation: int = 0
    tools: tuple[MCPTool, ...] = ()
    protocol_version: str | None = None
    error: str = ""
    last_output: str = ""
    reason: str = ""
    lost: bool = False
    failures: int = 0
