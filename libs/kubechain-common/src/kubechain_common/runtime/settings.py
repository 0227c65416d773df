"""What every service takes from its environment: variables prefixed KUBECHAIN_.

The docstring of a setting is what docs/settings.md says of it.
"""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from kubechain_common.messaging.access import BusAccess

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


class ServiceSettings(BaseSettings):
    """Base of a service's own settings."""

    model_config = SettingsConfigDict(env_prefix="KUBECHAIN_", extra="ignore", env_ignore_empty=True)

    nats_url: str = Field(default="nats://127.0.0.1:4222", repr=False)
    """Where NATS is."""
    nats_user: str = ""
    """The user as whom the service signs in to NATS. Without one it signs in anonymously."""
    nats_password_file: Path | None = None
    """The file that holds the user's password. It is read anew at each connect."""
    nats_ca_file: Path | None = None
    """The certificate of the authority that vouches for NATS. With one the connection is TLS. It is read anew at each
    connect."""
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """How many servers keep each stream and bucket; those that fewer servers keep are raised to it."""
    watch_namespace: str = ""
    """The one namespace that the service serves. Without one it serves all."""
    namespace: str = "default"
    """The namespace of the service's own objects: its Lease, the book of budgets, the key of links."""
    pod_name: str = ""
    """The name under which the service holds its Lease: the pod's, which a restart keeps. Without one it is made up."""
    http_host: str = ""
    """The address on which /livez, /readyz and /metrics are served. Without one they are on every address, of IPv6
    too."""
    http_port: int = Field(default=8080, ge=0, le=65535)
    """The port of /livez, /readyz and /metrics; 0 takes a free one."""
    log_level: LogLevel = "INFO"
    """The least severe lines that are logged."""
    log_format: Literal["json", "console"] = "json"
    """Whether log lines are written for machines or for people."""
    drain_seconds: float = Field(default=20.0, gt=0)
    """How long work in hand may take after SIGTERM."""

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        if bool(self.nats_user) != (self.nats_password_file is not None):
            raise ValueError("KUBECHAIN_NATS_USER and KUBECHAIN_NATS_PASSWORD_FILE go together: set both or none")
        return self

    def bus_access(self) -> BusAccess:
        """How to sign in to NATS."""
        return BusAccess(self.nats_user, self.nats_password_file, self.nats_ca_file, self.nats_replicas)

    def identity(self) -> str:
        """The pod's name, or one made up for this process."""
        return self.pod_name or f"{socket.gethostname()}_{secrets.token_hex(4)}"
