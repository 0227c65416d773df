"""Settings of this service beside those that all services share."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BridgeSettings(BaseSettings):
    """Variables prefixed ``KUBECHAIN_BRIDGE_``."""

    model_config = SettingsConfigDict(env_prefix="KUBECHAIN_BRIDGE_", extra="ignore", env_ignore_empty=True)

    host: str = ""
    """The address on which the page, the pages behind links, and the endpoints for answers are served. Without one they
    are on every address, of IPv6 too."""
    port: int = Field(default=8090, ge=0, le=65535)
    """Their port; 0 takes a free one."""
    public_url: str = ""
    """Their address as people reach them from outside: links in messages begin with it. Without one they begin with
    http://127.0.0.1 and the port."""
    humanlayer_url: str = "https://api.humanlayer.dev"
    """Where the HumanLayer API is, for channels with an apiKeyFrom that do not name another address."""
