"""The tools of an agent under the names that the model sees.

A tool is offered as ``<server>__<tool>``. Providers take only ``^[a-zA-Z0-9_-]{1,64}$``, so an unfit name is
sanitised and made unique by a hash. The way back from a name to its tool is a look-up here, never a split of the
name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kubechain_common.api.v1alpha1.agent import Agent
from kubechain_common.api.v1alpha1.mcpserver import MCPServer, MCPTool
from kubechain_common.api.v1alpha1.taskruntoolcall import ToolTarget, ToolType
from kubechain_common.messages import ToolDefinition

_FIT = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_UNFIT_CHARACTER = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME = 64
_EMPTY_SCHEMA = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class CatalogEntry:
    """One tool: what the model sees, and what it stands for."""

    definition: ToolDefinition
    type: ToolType
    target: ToolTarget


@dataclass(frozen=True)
class ToolCatalog:
    """The tools of one agent by wire name, in the order in which the agent names their servers."""

    entries: Mapping[str, CatalogEntry] = field(default_factory=dict)

    def find(self, wire_name: str) -> CatalogEntry | None:
        return self.entries.get(wire_name)

    def definitions(self) -> list[ToolDefinition]:
        return [entry.definition for entry in self.entries.values()]


def wire_name(full_name: str) -> str:
    """The name itself where providers take it, else a sanitised one that ends in a hash of the original."""
    if _FIT.match(full_name):
        return full_name
    suffix = "_" + hashlib.sha256(full_name.encode()).hexdigest()[:8]
    return _UNFIT_CHARACTER.sub("_", full_name)[: _MAX_NAME - len(suffix)] + suffix


def select_tools(server: MCPServer, allowed: Iterable[str] | None) -> list[MCPTool]:
    """The server's tools that the agent may use: all of them, or those on its allow-list."""
    if allowed is None:
        return list(server.status.tools)
    names = set(allowed)
    return [tool for tool in server.status.tools if tool.name in names]


def build_catalog(agent: Agent, servers: Mapping[str, MCPServer]) -> ToolCatalog:
    """The agent's tools, from the last tool list of each MCPServer that it names and that exists."""
    entries: dict[str, CatalogEntry] = {}
    for reference in agent.spec.mcp_servers:
        server = servers.get(reference.name)
        if server is None:
            continue
        for tool in select_tools(server, reference.tools):
            name = wire_name(f"{server.name}__{tool.name}")
            definition = ToolDefinition(
                name=name, description=tool.description or "", parameters=tool.input_schema or _EMPTY_SCHEMA
            )
            entries[name] = CatalogEntry(definition, "MCP", ToolTarget(name=server.name, tool=tool.name))
    return ToolCatalog(entries)
