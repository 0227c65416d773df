"""The script that can answer the questions of the tutorial, without any understanding of them.

A message with a URL in it becomes a call of a fetch tool if one is on offer, and the answer is made from what the
tool really gave back; the other answers are canned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from kubechain_cli.scripted_llm.script import MARKER, ChatMessage, Reply, ToolSpec, build_tool_call, marked

MOON = (
    "The Moon does not have a capital. It is a natural satellite of Earth and lacks any governmental structure "
    "or human habitation that would necessitate a capital city."
)
NAME = "I have no name and no directive: I am a script that plays the part of a language model in the tutorial."
UNKNOWN = "I only know the questions of the tutorial. Give the LLM a real API key for real answers."
HAIKUS = {"C-3PO": "Golden C-3PO,\nSpeaks in many languages,\nDroid with gentle heart."}

_URL = re.compile(r"https?://[^\s\"'<>]+")


def reply_tutorial(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
    """Answer the last user message of the conversation."""
    question = next((message.text for message in reversed(messages) if message.role == "user"), "")
    url = find_url(question)
    if url:
        return _reply_about_page(messages, tools, question, url)
    if "capital of the moon" in question.lower():
        return Reply(marked(MOON))
    if "primary directive" in question.lower():
        return Reply(marked(NAME))
    return Reply(marked(UNKNOWN))


def find_url(text: str) -> str:
    """The first URL of the text without the punctuation of the sentence around it, or an empty string."""
    match = _URL.search(text)
    return match.group().rstrip("?!.,;:)]}") if match else ""


def _reply_about_page(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec], question: str, url: str) -> Reply:
    if messages[-1].role == "tool":
        return Reply(f"{MARKER}\n{_describe(question, url, messages[-1].text)}")
    fetch = next((tool.name for tool in tools if tool.name.split("__")[-1] == "fetch"), None)
    if fetch is None:
        return Reply(marked(f"I have no tool to fetch {url} with."))
    return Reply(tool_calls=(build_tool_call(messages, 0, fetch, {"url": url}),))


def _describe(question: str, url: str, page: str) -> str:
    data = find_json_object(page)
    if data is None:
        return f"The tool gave no data for {url}. It said: {page[:500]}"
    haiku = HAIKUS.get(str(data.get("name")))
    if haiku and "haiku" in question.lower():
        return haiku
    return f"The URL {url} contains the following data about a Star Wars character:\n" + "\n".join(render_fields(data))


def find_json_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in the text, whatever stands around it."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            value, _ = decoder.raw_decode(text, start)
        except ValueError:
            start = text.find("{", start + 1)
        else:
            return value if isinstance(value, dict) else None
    return None


def render_fields(data: dict[str, Any]) -> list[str]:
    """One line for each field; the entries of a list follow as lines of their own."""
    lines = []
    for key, value in data.items():
        title = key.replace("_", " ").title()
        if not isinstance(value, list):
            lines.append(f"- **{title}**: {value}")
        elif not value:
            lines.append(f"- **{title}**: None listed")
        else:
            lines.append(f"- **{title}**:")
            lines.extend(f"  - {entry}" for entry in value)
    return lines
