"""What can go wrong between us and an MCP server.

    MCPHostError
    ├── ConnectionSpecError       the MCPServer can not be connected to as it is written; ``reason`` is the condition's
    │   ├── SecretMissingError    a Secret, or a key of it, does not exist (yet)
    │   ├── InvalidSpecError      a field that the transport needs is absent or unusable
    │   └── IsolationError        stdio servers are to be isolated, and this machine can not do it
    ├── ConnectFailedError        the server could not be reached, or did not speak MCP (retried with back-off)
    ├── ConnectionLostError       an open connection broke, perhaps while a call was running
    └── ServerUnavailableError    no connection came up within the time that a call may take

Every message is a whole sentence for the user, free of secret values.
"""

from __future__ import annotations


class MCPHostError(Exception):
    """Base of this package's errors."""

    retryable = True


class ConnectionSpecError(MCPHostError):
    """The MCPServer, or something that it refers to, has to change before a connection makes sense."""

    retryable = False
    reason = "ConnectionFailed"


class SecretMissingError(ConnectionSpecError):
    reason = "SecretNotFound"


class InvalidSpecError(ConnectionSpecError):
    reason = "ValidationFailed"


class IsolationError(ConnectionSpecError):
    reason = "IsolationFailed"


class ConnectFailedError(MCPHostError):
    pass


class ConnectionLostError(MCPHostError):
    """``may_have_run`` is False when it is certain that the call never reached the tool."""

    retryable = False

    def __init__(self, message: str, *, may_have_run: bool = True) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class ServerUnavailableError(MCPHostError):
    pass
