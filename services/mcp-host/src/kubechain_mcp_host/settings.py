"""Settings of this service beside those that all services share."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from kubechain_mcp_host.environment import DEFAULT_PASSTHROUGH


class MCPHostSettings(BaseSettings):
    """``KUBECHAIN_MCP_ENV_PASSTHROUGH``: comma-separated patterns of the variables that stdio servers get from ours.
    ``KUBECHAIN_MCP_MAX_CALLS``: calls that this replica runs at a time, over all its servers.
    """

    model_config = SettingsConfigDict(env_prefix="KUBECHAIN_MCP_", extra="ignore")

    max_calls: int = Field(default=100, ge=1, le=100_000)
    env_passthrough: str = ",".join(DEFAULT_PASSTHROUGH)
