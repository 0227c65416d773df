"""The service account of a pod.

https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from kubechain_common.kube.connection import Connection, TokenFile
from kubechain_common.kube.errors import ConfigurationError

_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def connect_by_service_account(environ: Mapping[str, str], folder: Path = _FOLDER) -> Connection:
    """The connection of a pod. Raises ConfigurationError or OSError when something is missing."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise ConfigurationError("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not both set")
    token = TokenFile(folder / "token")
    return Connection(
        host=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ssl_context=ssl.create_default_context(cafile=str(folder / "ca.crt")),
        authorization=token.read(),
        renew=token.renew,
    )
