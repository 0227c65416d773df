"""The scripts that come with the package, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from kubechain_cli.scripted_llm.script import ChatMessage, Reply, Script, ToolSpec, marked
from kubechain_cli.scripted_llm.tool_turns import reply_tools
from kubechain_cli.scripted_llm.tutorial_script import reply_tutorial


def reply_echo(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
    """Repeat what was said last."""
    return Reply(marked(messages[-1].text))


SCRIPTS: Mapping[str, Script] = MappingProxyType({"tutorial": reply_tutorial, "echo": reply_echo, "tools": reply_tools})
