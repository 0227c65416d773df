"""The tools of an agent under the names that the model sees.

A tool is offered as ``<server>__<tool>``, a person as ``<channel>__human_contact_<type>`` and another agent as
``delegate_to_agent__<agent>``. Providers take only ``^[a-zA-Z0-9_-]{1,64}$``, so an unfit name is
sanitised and made unique by a hash. The way back from a name to its tool is a look-up here, never a split of the
name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from kubechain_common.api.v1alpha1.agent import Agent
from kubechain_common.api.v1alpha1.contactchannel import ContactChannel
from kubechain_common.api.v1alpha1.mcpserver import MCPServer, MCPTool
from kubechain_common.api.v1alpha1.taskruntoolcall import ToolTarget, ToolType
from kubechain_common.messages import ToolDefinition

_FIT = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_UNFIT_CHARACTER = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME = 64
_EMPTY_SCHEMA = {"type": "object", "properties": {}}


def _message_schema(meaning: str) -> dict[str, Any]:
    message = {"type": "string", "description": meaning}
    return {"type": "object", "properties": {"message": message}, "required": ["message"]}


_TO_A_HUMAN = _message_schema("What to tell or to ask the human. They see nothing else of this conversation.")
_TO_AN_AGENT = _message_schema("The whole task for the agent. It sees nothing else of this conversation.")


@dataclass(frozen=True)
class CatalogEntry:
    """One tool: what the model sees, and what it stands for."""

    definition: ToolDefinition
    type: ToolType
    target: ToolTarget


@dataclass(frozen=True)
class ToolCatalog:
    """The tools of one agent by wire name, in the order in which the agent names what offers them.

    ``build`` makes them, of what there was with the snapshot, once they are asked for: few steps of a Task do.
    """

    build: Callable[[], Mapping[str, CatalogEntry]] = dict

    @cached_property
    def entries(self) -> Mapping[str, CatalogEntry]:
        return self.build()

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


def build_catalog(
    agent: Agent,
    servers: Mapping[str, MCPServer],
    channels: Mapping[str, ContactChannel],
    sub_agents: Mapping[str, Agent],
) -> ToolCatalog:
    """The agent's tools, of what its spec names and exists; those of an MCPServer are from its last list."""
    return ToolCatalog(lambda: _build_entries(agent, servers, channels, sub_agents))


def _build_entries(
    agent: Agent,
    servers: Mapping[str, MCPServer],
    channels: Mapping[str, ContactChannel],
    sub_agents: Mapping[str, Agent],
) -> dict[str, CatalogEntry]:
    spec = agent.spec
    entries: dict[str, CatalogEntry] = {}
    for reference in spec.mcp_servers:
        if reference.name in servers:
            for tool in select_tools(servers[reference.name], reference.tools):
                _add(entries, _offer_tool(reference.name, tool))
    for ref in spec.human_contact_channels:
        if ref.name in channels:
            _add(entries, _offer_human(channels[ref.name]))
    for ref in spec.sub_agents:
        if ref.name in sub_agents:
            _add(entries, _offer_agent(sub_agents[ref.name]))
    return entries


def _add(entries: dict[str, CatalogEntry], entry: CatalogEntry) -> None:
    """A server and a channel of the same name may meet in a name; the first of them has it."""
    name = entry.definition.name
    if name in entries:
        name = wire_name(f"{name} ({entry.type})")
        entry = replace(entry, definition=entry.definition.model_copy(update={"name": name}))
    entries[name] = entry


def _offer_tool(server: str, tool: MCPTool) -> CatalogEntry:
    definition = ToolDefinition(
        name=wire_name(f"{server}__{tool.name}"),
        description=tool.description or "",
        parameters=tool.input_schema or _EMPTY_SCHEMA,
    )
    return CatalogEntry(definition, "MCP", ToolTarget(name=server, tool=tool.name))


def _offer_human(channel: ContactChannel) -> CatalogEntry:
    kind = channel.spec.type
    definition = ToolDefinition(
        name=wire_name(f"{channel.name}__human_contact_{kind}"),
        description=channel.spec.context or f"Contact a human via {kind}",
        parameters=_TO_A_HUMAN,
    )
    return CatalogEntry(definition, "HumanContact", ToolTarget(name=channel.name))


def _offer_agent(agent: Agent) -> CatalogEntry:
    definition = ToolDefinition(
        name=wire_name(f"delegate_to_agent__{agent.name}"),
        description=agent.spec.description or f'Delegate a task to the agent "{agent.name}" and get its final answer',
        parameters=_TO_AN_AGENT,
    )
    return CatalogEntry(definition, "DelegateToAgent", ToolTarget(name=agent.name))
