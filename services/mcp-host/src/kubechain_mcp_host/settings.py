"""Settings of this service beside those that all services share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from kubechain_mcp_host.guard.landlock import WHOLE_ABI
from kubechain_mcp_host.stdio.environment import DEFAULT_PASSTHROUGH


class MCPHostSettings(BaseSettings):
    """Variables prefixed ``KUBECHAIN_MCP_``; lists are separated by commas."""

    model_config = SettingsConfigDict(env_prefix="KUBECHAIN_MCP_", extra="ignore", env_ignore_empty=True)

    max_calls: int = Field(default=100, ge=1, le=100_000)
    """How many calls this replica runs at a time, over all its servers."""
    session_idle_seconds: float = Field(default=1800.0, ge=1.0)
    """How long a Task's session may lie idle before it is closed."""
    env_passthrough: str = ",".join(DEFAULT_PASSTHROUGH)
    """Which variables of mcp-host its stdio servers get: patterns of their names."""
    isolation: Literal["landlock", "none"] = "landlock"
    """How stdio servers are isolated from each other and from mcp-host. With none they may do whatever mcp-host may."""
    data: Path = Path("/var/lib/kubechain/mcp")
    """The folder in which each isolated server has its own. Nothing else may use it."""
    readable: str = ""
    """More paths that isolated servers may read and execute, beside those that programs need anyway."""
    landlock_abi: int = Field(default=WHOLE_ABI, ge=1, le=WHOLE_ABI)
    """The least version of Landlock that the kernel has to offer. Below the default some isolation is missing."""
