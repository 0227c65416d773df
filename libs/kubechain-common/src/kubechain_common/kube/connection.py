"""What it takes to talk to one API server, wherever that was read."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kubechain_common.kube.errors import ConfigurationError


@dataclass(frozen=True)
class Connection:
    """Address, TLS context and proof of identity."""

    host: str
    ssl_context: ssl.SSLContext
    server_hostname: str | None = None
    proxy: str | None = None
    authorization: str = ""
    """The Authorization header; empty when the client certificate is the proof."""
    renew: Callable[[], Awaitable[str]] | None = None
    """Gives a fresh Authorization header; None when it never changes. Raises OSError or ConfigurationError."""


@dataclass(frozen=True)
class TokenFile:
    """A token that somebody else keeps fresh."""

    path: Path

    def read(self) -> str:
        """The Authorization header."""
        token = self.path.read_text(encoding="utf-8", errors="replace").strip()
        if not token:
            raise ConfigurationError(f"the token file {self.path} is empty")
        return f"Bearer {token}"

    async def renew(self) -> str:
        return self.read()
