"""What of an MCPServer decides how it is connected to, with all Secret values filled in (pure).

Two equal ConnectionSpecs need no reconnect: a change of the approval channel, of maxConcurrency or of a timeout
leaves a running server alone, a changed Secret does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.api.v1alpha1.mcpserver import NamedValue
from kubechain_mcp_host.errors import InvalidSpecError, SecretMissingError
from kubechain_mcp_host.scrubber import Scrubber
from kubechain_mcp_host.spec.resource_limits import read_limits

SecretReader = Callable[[str], Mapping[str, str] | None]
"""Gives the values of the Secret of that name in the server's namespace; None when there is none."""


@dataclass(frozen=True)
class ConnectionSpec:
    """Everything that opening a connection needs. Secret values never show in its repr."""

    transport: Literal["stdio", "http"]
    command: str = ""
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    url: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secret_values: frozenset[str] = field(default=frozenset(), repr=False)
    uid: str = ""
    memory: int = 0
    """The limit in bytes; 0 is none."""
    cpu: float = 0.0
    """The limit in cores; 0 is none."""

    def build_scrubber(self) -> Scrubber:
        return Scrubber(self.secret_values)


def secret_names(server: MCPServer) -> set[str]:
    """The Secrets that env and headers refer to."""
    return {v.value_from.secret_key_ref.name for v in _named_values(server) if v.value_from is not None}


def resolve_connection(server: MCPServer, read_secret: SecretReader) -> ConnectionSpec:
    """The server's ConnectionSpec.

    Raises SecretMissingError when a Secret or a key of it is not there, InvalidSpecError when a required field is not.
    """
    spec = server.spec
    env = _resolve(spec.env or (), read_secret)
    headers = _resolve(spec.headers or (), read_secret)
    secret = frozenset(
        value
        for item, (_, value) in zip(_named_values(server), (*env, *headers), strict=True)
        if item.value_from is not None and value
    )
    if spec.transport == "stdio":
        if not spec.command:
            raise InvalidSpecError("Validation failed: command is required for transport stdio.")
        _refuse_nul(spec.command, *(spec.args or ()), *(text for pair in env for text in pair))
        memory, cpu = read_limits(server)
        return ConnectionSpec(
            "stdio",
            spec.command,
            tuple(spec.args or ()),
            env,
            secret_values=secret,
            uid=server.uid,
            memory=memory,
            cpu=cpu,
        )
    if not spec.url:
        raise InvalidSpecError("Validation failed: url is required for transport http.")
    _refuse_unfit_headers(headers)
    return ConnectionSpec("http", url=spec.url, headers=headers, secret_values=secret)


def _named_values(server: MCPServer) -> list[NamedValue]:
    return [*(server.spec.env or ()), *(server.spec.headers or ())]


def _resolve(values: Iterable[NamedValue], read_secret: SecretReader) -> tuple[tuple[str, str], ...]:
    return tuple((v.name, _resolve_one(v, read_secret)) for v in values)


def _resolve_one(value: NamedValue, read_secret: SecretReader) -> str:
    if value.value_from is None:
        return value.value or ""
    ref = value.value_from.secret_key_ref
    data = read_secret(ref.name)
    if data is None:
        raise SecretMissingError(
            f'Secret "{ref.name}" was not found (needed for "{value.name}"): '
            "create it, and the server connects by itself."
        )
    if ref.key not in data:
        raise SecretMissingError(
            f'Secret "{ref.name}" has no key "{ref.key}" (needed for "{value.name}"): '
            "add it, and the server connects by itself."
        )
    if "\ufffd" in data[ref.key]:
        raise SecretMissingError(
            f'Key "{ref.key}" of Secret "{ref.name}" is not text in UTF-8 (needed for "{value.name}"): '
            "put the text itself there, and the server connects by itself."
        )
    # A trailing newline is what `echo token | base64` leaves behind; no token or password ends in one.
    return data[ref.key].rstrip("\r\n")


def _refuse_nul(*texts: str) -> None:
    if any("\0" in text for text in texts):
        raise InvalidSpecError("Validation failed: command, args and env must not hold NUL characters.")


def _refuse_unfit_headers(headers: Iterable[tuple[str, str]]) -> None:
    for name, value in headers:
        if not (name.isascii() and name.isprintable() and ":" not in name and " " not in name):
            raise InvalidSpecError(f'Validation failed: "{name}" is not a valid name of an HTTP header.')
        if not value.isascii() or any(c in value for c in "\r\n\0"):
            raise InvalidSpecError(
                f'Validation failed: the value of HTTP header "{name}" holds a line break '
                "or a character that is not ASCII."
            )
