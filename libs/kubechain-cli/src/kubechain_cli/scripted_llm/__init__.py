"""A scripted stand-in for the LLM providers: it speaks their HTTP and answers by a script. It is no LLM and says so.

Read in this order: ``script`` holds the types a script works with, ``scripts`` the scripts that come with the package,
``openai_wire`` and ``anthropic_wire`` translate between those types and the two providers' JSON, ``server`` serves
them.

    async with ScriptedServer(SCRIPTS["tutorial"]) as server:
        AsyncOpenAI(base_url=server.url, api_key="any")
        AsyncAnthropic(base_url=server.anthropic_url, api_key="any")

A script is a pure function of the conversation, so the server keeps no state and survives restarts in mid-run.
"""

from kubechain_cli.scripted_llm.request_log import LoggedRequest, fingerprint
from kubechain_cli.scripted_llm.script import MARKER, ChatMessage, Reply, Script, ToolCall, ToolSpec, marked
from kubechain_cli.scripted_llm.scripts import SCRIPTS
from kubechain_cli.scripted_llm.server import DEFAULT_MODELS, ScriptedServer

__all__ = [
    "DEFAULT_MODELS",
    "MARKER",
    "SCRIPTS",
    "ChatMessage",
    "LoggedRequest",
    "Reply",
    "Script",
    "ScriptedServer",
    "ToolCall",
    "ToolSpec",
    "fingerprint",
    "marked",
]
