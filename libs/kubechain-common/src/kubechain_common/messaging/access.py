"""How a process reaches NATS, and as whom."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubechain_common.messages.permissions import inbox_prefix
from kubechain_common.messaging.errors import CredentialsError
from kubechain_common.telemetry.logging import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True)
class BusAccess:
    """``user`` and ``password_file`` go together. Without them the client signs in anonymously.

    ``ca_file`` is the certificate of the authority that vouches for the server; with it the connection is TLS.
    ``replicas`` is how many servers keep each stream and bucket; existing ones with fewer are raised to it.
    """

    user: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    replicas: int = 1

    def build_options(self) -> dict[str, Any]:
        """The options of the client's ``connect``. Raises CredentialsError when the CA cannot be read."""
        options: dict[str, Any] = {}
        if self.user:
            options["user"] = self.user
            # Nobody reads the answers to another: each user may listen below a prefix of its own only.
            options["inbox_prefix"] = inbox_prefix(self.user).encode()
        if self.password_file is not None:
            options["password"] = _read_anew(self.password_file)
        if self.ca_file is not None:
            # Before anything else is said, or whoever pretends to be NATS would be told the password.
            options["tls_handshake_first"] = True
            options["tls"] = _Trust(self.ca_file)
        return options


class _Trust:
    """Whom to believe that it is NATS, by the authority's certificate in a file. Raises CredentialsError at first."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._seen = self._look()
            self._context = self._build()
        except OSError as error:
            raise CredentialsError(f"The CA of NATS cannot be read from {file}: {error}") from error

    def __call__(self) -> ssl.SSLContext:
        """Asked for by our client at each connect, so an authority that was changed is known by then."""
        try:
            seen = self._look()
            if seen != self._seen:
                self._context, self._seen = self._build(), seen
                _log.info("the CA of NATS has changed", file=str(self._file))
        except OSError as error:  # it may be about to be written, and the one of before may still be right
            _log.warning("the CA of NATS cannot be read any more", file=str(self._file), error=str(error))
        return self._context

    def _look(self) -> tuple[int, int, int]:
        found = self._file.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _build(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self._file))


def _read_anew(file: Path) -> Callable[[], str]:
    """A function that reads the password. The client calls it at each connect, so a changed password counts from then
    on.
    """

    def read() -> str:
        password = file.read_text(encoding="utf-8").strip()
        if not password:
            raise OSError(f"the file of the NATS password is empty: {file}")
        return password

    return read
