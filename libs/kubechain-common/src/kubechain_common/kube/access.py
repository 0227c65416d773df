"""Where the API server is, and how we prove who we are.

The usual ways (a pod's service account, a kubeconfig with a certificate or a token) are read by small modules of our
own, the others by ``kubernetes.aio``, which is imported for them alone: it takes longer than the rest of a start.
Tokens grow old, so they are asked for again from time to time, by the request that needs one.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

from kubechain_common.kube.connection import Connection
from kubechain_common.kube.errors import ConfigurationError
from kubechain_common.kube.kubeconfig import connect_by_kubeconfig
from kubechain_common.kube.service_account import connect_by_service_account

_REFRESH_SECONDS = 60.0
_DEFAULT_KUBECONFIG = Path.home() / ".kube" / "config"


class ClusterAccess:
    """Address, TLS context and credentials of one cluster."""

    def __init__(self, connection: Connection) -> None:
        self._authorization = connection.authorization
        self._renew = connection.renew
        self._refused: str | None = None
        self._lock = asyncio.Lock()
        self._refresh_at = asyncio.get_running_loop().time() + _REFRESH_SECONDS
        self.host: str = connection.host
        self.ssl_context: ssl.SSLContext = connection.ssl_context
        self.server_hostname: str | None = connection.server_hostname
        self.proxy: str | None = connection.proxy

    @classmethod
    async def load(cls) -> ClusterAccess:
        """From ``KUBECONFIG``, else the pod's service account, else ``~/.kube/config``. Raises ConfigurationError."""
        try:
            connection = await _connect()
            _check_proxy(connection.proxy)
            return cls(connection)
        except (ConfigurationError, OSError, ValueError) as error:
            raise ConfigurationError(
                f"No usable Kubernetes configuration: {error}. "
                "Set KUBECONFIG to a kubeconfig file, or run inside a cluster."
            ) from error

    async def auth_headers(self) -> dict[str, str]:
        """The Authorization header, if this cluster takes one rather than a client certificate."""
        if self._renew is not None and asyncio.get_running_loop().time() >= self._refresh_at:
            await self._refresh()
        return {"Authorization": self._authorization} if self._authorization else {}

    def expire(self, refused: str | None = None) -> None:
        """Ask for new credentials with the next request, because these (by default the latest) were refused."""
        self._refused = self._authorization if refused is None else refused
        self._refresh_at = min(self._refresh_at, asyncio.get_running_loop().time())

    async def renew(self) -> bool:
        """Whether there are other credentials now than those that were refused. Raises ConfigurationError."""
        headers = await self.auth_headers()
        return headers.get("Authorization", "") != self._refused

    async def _refresh(self) -> None:
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._renew is None or now < self._refresh_at:
                return
            self._refresh_at = now + _REFRESH_SECONDS
            try:
                self._authorization = await self._renew()
            except (ConfigurationError, OSError, ValueError) as error:
                message = f"Cannot refresh the Kubernetes credentials: {error}"
                raise ConfigurationError(message, retryable=True) from error


def _check_proxy(proxy: str | None) -> None:
    scheme, separator, _ = (proxy or "http://").partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        # The whole may hold a password.
        raise ConfigurationError(
            "its proxy-url is none that begins with http:// or https://, and others can not be used"
        )


async def _connect() -> Connection:
    paths = os.environ.get("KUBECONFIG", "")
    if not paths and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return connect_by_service_account(os.environ)
    paths = paths or str(_DEFAULT_KUBECONFIG)
    connection = connect_by_kubeconfig(paths)
    if connection is None:
        connection = await _connect_by_library(paths)
    return connection


async def _connect_by_library(paths: str) -> Connection:
    try:
        from kubechain_common.kube.library_access import connect_by_library
    except ModuleNotFoundError as error:  # the images are made without it: it is two thirds of all that they install
        raise ConfigurationError(
            f"{paths} is missing, or not one plain kubeconfig with a token or a client certificate "
            "(the Python package kubernetes, which reads all others, is not installed here)"
        ) from error
    return await connect_by_library(paths)
