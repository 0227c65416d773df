"""About how many tokens a conversation has, where no model has counted them yet.

Every model counts in its own way, so this is a rule of thumb that errs on the large side: a token for every three bytes
of UTF-8. English prose has four to five per token, JSON and code about three, and a Chinese character, with its three
bytes, is about one token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from kubechain_common.api.v1alpha1.conversation import Message, MessageUsage
from kubechain_common.messages import ToolDefinition

BYTES_PER_TOKEN = 3
MESSAGE_TOKENS = 8
"""What a message or a tool costs beside its texts."""

IMAGE_TOKENS = 1600
"""Of one image; providers scale large ones down to about this."""

_SIZE = re.compile(r"\[([0-9,]{1,24}) bytes\]\Z")
"""The end of a text that stands in for a longer one (``offload.shorten_text``)."""


def estimate_messages(messages: Iterable[Message]) -> int:
    """Tokens of the messages, also of texts that are kept elsewhere; nothing for what ``earlier`` stands for."""
    return sum(_estimate_message(message) for message in messages if message.role != "earlier")


def estimate_tools(tools: Sequence[ToolDefinition]) -> int:
    """Tokens of what the model is told about its tools."""
    return sum(MESSAGE_TOKENS + _tokens(len(tool.model_dump_json().encode())) for tool in tools)


def count_answer(before: int, answer: Message, usage: MessageUsage | None) -> int:
    """Tokens of the conversation with an answer: as the provider counted them, if it did."""
    if usage is not None and usage.input_tokens > 0:
        return usage.input_tokens + max(0, usage.output_tokens)
    return before + estimate_messages([answer])


def _estimate_message(message: Message) -> int:
    size = _size_of(message.content, stands_in=message.content_from is not None)
    for call in message.tool_calls or ():
        function = call.function
        size += len(function.name.encode()) + _size_of(
            function.arguments, stands_in=function.arguments_from is not None
        )
    return MESSAGE_TOKENS + _tokens(size) + IMAGE_TOKENS * len(message.images or ())


def _size_of(text: str, *, stands_in: bool) -> int:
    """Bytes of the text, or of the one that it stands in for."""
    said = _SIZE.search(text) if stands_in else None
    return int(said[1].replace(",", "") or 0) if said else len(text.encode())


def _tokens(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)
