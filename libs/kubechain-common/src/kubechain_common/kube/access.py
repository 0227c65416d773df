"""Where the API server is, and how we prove who we are.

``kubernetes.aio`` reads kubeconfig files (client certificates, tokens, exec plugins, OIDC) and the service account of
a pod; its Configuration holds the outcome. Tokens grow old, so the loader is asked again from time to time, by the
request that needs it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from kubechain_common.kube.errors import ConfigurationError

_REFRESH_SECONDS = 60.0
_DEFAULT_KUBECONFIG = Path.home() / ".kube" / "config"


class ClusterAccess:
    """Address, TLS context and credentials of one cluster."""

    def __init__(self, configuration: Any, loader: Any | None) -> None:
        self._configuration = configuration
        self._loader = loader
        self._lock = asyncio.Lock()
        self._refresh_at = asyncio.get_running_loop().time() + _REFRESH_SECONDS
        self.host: str = configuration.host.rstrip("/")
        self.ssl_context: ssl.SSLContext = RESTClientObject(configuration).ssl_context
        self.server_hostname: str | None = configuration.tls_server_name
        self.proxy: str | None = configuration.proxy

    @classmethod
    async def load(cls) -> ClusterAccess:
        """From ``KUBECONFIG``, else the pod's service account, else ``~/.kube/config``. Raises ConfigurationError."""
        configuration = Configuration()
        kubeconfig = os.environ.get("KUBECONFIG", "")
        try:
            if not kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config(client_configuration=configuration)
                return cls(configuration, None)
            path = kubeconfig or str(_DEFAULT_KUBECONFIG)
            loader = await config.load_kube_config(config_file=path, client_configuration=configuration)
            return cls(configuration, loader)
        except (config.ConfigException, OSError) as error:
            raise ConfigurationError(
                f"No usable Kubernetes configuration: {error}. "
                "Set KUBECONFIG to a kubeconfig file, or run inside a cluster."
            ) from error

    async def auth_headers(self) -> dict[str, str]:
        """The Authorization header, if this cluster takes one rather than a client certificate."""
        if not self._configuration.api_key:
            return {}
        if self._loader is not None and asyncio.get_running_loop().time() >= self._refresh_at:
            await self._refresh()
        settings = await self._configuration.auth_settings()
        return {auth["key"]: auth["value"] for auth in settings.values() if auth["value"]}

    def expire(self) -> None:
        """Ask for new credentials with the next request, because these were refused."""
        self._refresh_at = min(self._refresh_at, asyncio.get_running_loop().time())

    async def _refresh(self) -> None:
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._loader is None or now < self._refresh_at:
                return
            self._refresh_at = now + _REFRESH_SECONDS
            try:
                await self._loader.load_and_set(self._configuration)
            except (config.ConfigException, OSError) as error:
                message = f"Cannot refresh the Kubernetes credentials: {error}"
                raise ConfigurationError(message, retryable=True) from error
