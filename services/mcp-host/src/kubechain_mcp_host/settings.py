"""Settings of this service beside those that all services share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from kubechain_mcp_host.environment import DEFAULT_PASSTHROUGH
from kubechain_mcp_host.guard.landlock import WHOLE_ABI


class MCPHostSettings(BaseSettings):
    """Variables prefixed ``KUBECHAIN_MCP_``; lists are separated by commas."""

    model_config = SettingsConfigDict(env_prefix="KUBECHAIN_MCP_", extra="ignore", env_ignore_empty=True)

    max_calls: int = Field(default=100, ge=1, le=100_000)
    """Calls that this replica runs at a time, over all its servers."""
    session_idle_seconds: float = Field(default=1800.0, ge=1.0)
    """How long a Task's session may lie idle before it is closed."""
    env_passthrough: str = ",".join(DEFAULT_PASSTHROUGH)
    """Patterns of the variables that stdio servers get from ours."""
    isolation: Literal["landlock", "none"] = "landlock"
    """Of stdio servers, from each other and from us. Without it they may do whatever this process may."""
    data: Path = Path("/var/lib/kubechain/mcp")
    """Where isolated servers have their folders. Nobody else may use it."""
    readable: str = ""
    """Paths that isolated servers may read and execute beside those that programs need anyway."""
    landlock_abi: int = Field(default=WHOLE_ABI, ge=1, le=WHOLE_ABI)
    """The least that the kernel has to offer; below the default some of the isolation is missing (docs/security.md)."""
