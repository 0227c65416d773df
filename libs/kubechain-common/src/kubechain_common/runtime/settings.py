"""What every service takes from its environment: variables prefixed KUBECHAIN_."""

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
    nats_user: str = ""
    """Who we are to NATS; empty where it asks nobody."""
    nats_password_file: Path | None = None
    """Read anew at each connect."""
    nats_ca_file: Path | None = None
    """Who vouches for NATS, to which we then speak TLS."""
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """On how many servers streams and buckets are kept."""
    watch_namespace: str = ""
    """The one namespace to serve; empty serves all."""
    namespace: str = "default"
    """Where this service's Leases live."""
    pod_name: str = ""
    """Who we are to the Lease; the same after a restart of the same pod."""
    http_host: str = "0.0.0.0"
    http_port: int = Field(default=8080, ge=0, le=65535)
    """Serves /livez, /readyz and /metrics; 0 takes a free port."""
    log_level: LogLevel = "INFO"
    log_format: Literal["json", "console"] = "json"
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
