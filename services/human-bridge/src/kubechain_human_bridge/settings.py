"""Settings of this service beside those that all services share."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BridgeSettings(BaseSettings):
    """Variables prefixed ``KUBECHAIN_BRIDGE_``.

    ``host`` and ``port`` are where the page and the answers' endpoints are served; ``public_url`` is how people reach
    them from outside, and what the links in messages begin with (empty: http://127.0.0.1:<port>).
    """

    model_config = SettingsConfigDict(env_prefix="KUBECHAIN_BRIDGE_", extra="ignore", env_ignore_empty=True)

    host: str = "0.0.0.0"
    port: int = Field(default=8090, ge=0, le=65535)
    public_url: str = ""
    humanlayer_url: str = "https://api.humanlayer.dev"
    """Where channels with an apiKeyFrom find the HumanLayer API, unless they say otherwise."""
