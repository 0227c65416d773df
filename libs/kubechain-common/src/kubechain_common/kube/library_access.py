"""Every other kubeconfig, by way of ``kubernetes.aio``: exec plug-ins, auth providers, passwords, several files.

Imported only when there is one, because the ``kubernetes`` package takes half a second of CPU to import.
"""

from __future__ import annotations

from typing import Any

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from kubechain_common.kube.connection import Connection
from kubechain_common.kube.errors import ConfigurationError


async def connect_by_library(paths: str) -> Connection:
    """The connection that the files describe. Raises ConfigurationError or OSError when they are no kubeconfig."""
    configuration: Any = Configuration()
    try:
        loader = await config.load_kube_config(config_file=paths, client_configuration=configuration)
        ssl_context = RESTClientObject(configuration).ssl_context
    except (yaml.YAMLError, TypeError, AttributeError) as error:  # the library takes for granted what it finds
        # The error itself may quote the file.
        raise ConfigurationError(f"{paths} is not a kubeconfig") from error
    except config.ConfigException as error:
        raise ConfigurationError(str(error)) from error

    async def renew() -> str:
        try:
            await loader.load_and_set(configuration)
        except config.ConfigException as error:
            raise ConfigurationError(str(error)) from error
        return _authorization(configuration)

    authorization = _authorization(configuration)
    return Connection(
        host=configuration.host.rstrip("/"),
        ssl_context=ssl_context,
        server_hostname=configuration.tls_server_name,
        proxy=configuration.proxy,
        authorization=authorization,
        renew=renew if authorization else None,
    )


def _authorization(configuration: Any) -> str:
    value: str = configuration.api_key.get("BearerToken", "")
    return value
