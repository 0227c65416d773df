"""The types a script works with: the conversation as it goes in, the reply as it comes out.

They know neither provider: one script serves both protocols.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

MARKER = "[scripted stand-in, not an LLM]"
"""What every answer that a person may read begins with."""

OWNER = "kubechain-scripted-stand-in"
"""Who owns the models, and the system fingerprint of every OpenAI answer."""

HEADER = "X-Kubechain-Scripted"
"""Response header on everything the server says."""

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A tool call; ``arguments`` is JSON text, exactly as it goes over the wire."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ChatMessage:
    """One message. ``tool_call_id`` is set on role tool only, ``tool_calls`` on role assistant only."""

    role: Role
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True)
class ToolSpec:
    """A tool on offer, with the JSON schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """Tokens of one exchange."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Reply:
    """What the server answers.

    ``delay`` is in seconds. A ``status`` of 400 and more sends ``error`` in the provider's error shape instead of the
    text, with ``headers`` beside it (``Retry-After``, for instance). ``usage`` left out is estimated from the texts.
    ``cut``: the answer is what was written of it until the token limit.

    For those who ask for a stream, ``pause`` is in seconds between two events, and ``cut_after`` breaks the connection
    off after so many events; a reply in one piece is cut in the middle then.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    delay: float = 0.0
    status: int = 200
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0
    cut_after: int | None = None
    cut: bool = False


Script = Callable[[Sequence[ChatMessage], Sequence[ToolSpec]], Reply]
"""A pure function of the conversation and the tools on offer."""


def marked(text: str) -> str:
    """The text, beginning with the marker."""
    return f"{MARKER} {text}"


def build_tool_call(messages: Sequence[ChatMessage], index: int, name: str, arguments: Mapping[str, Any]) -> ToolCall:
    """Call ``index`` of this turn, with an id that is the same whenever the same conversation asks for it."""
    spoken = sum(message.role == "assistant" for message in messages)
    words = next((message.text for message in reversed(messages) if message.role == "user"), "")
    digest = hashlib.sha256(f"{spoken}\0{index}\0{words}".encode()).hexdigest()[:24]
    return ToolCall(id=f"call_{digest}", name=name, arguments=orjson.dumps(arguments).decode())


def estimate_usage(messages: Sequence[ChatMessage], reply: Reply) -> Usage:
    """About a token per four characters, as a rule of thumb: the same conversation always costs the same."""
    spoken = sum(_length(message.text, message.tool_calls) for message in messages)
    return Usage(max(1, spoken // 4), max(1, _length(reply.text, reply.tool_calls) // 4))


def _length(text: str, calls: Sequence[ToolCall]) -> int:
    return len(text) + sum(len(call.name) + len(call.arguments) for call in calls)
