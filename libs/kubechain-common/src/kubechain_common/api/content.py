"""References from a window to the texts that it does not hold itself: their keys, and the texts of whole pages.

A page is a run of messages that were taken out of a window, one line of JSON each. It may begin with a reference to the
page before it, so a conversation of any length hangs on one reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubechain_common.api.v1alpha1.conversation import ArgumentsSource, ContentSource, Message

PAGE_KEY = "messages.jsonl"
TEXT_KEY = "content"

_RESULT = "result"
_ARGUMENTS = "arguments"


def reference_key(source: ContentSource | ArgumentsSource) -> str:
    """``<kind>/<name>/<part>``: tells a text from every other one of the same Task."""
    if isinstance(source, ArgumentsSource):
        return arguments_key(source.task_run_tool_call_ref.name)
    if source.task_run_tool_call_ref is not None:
        return result_key(source.task_run_tool_call_ref.name)
    if source.config_map_key_ref is not None:
        return stored_key(source.config_map_key_ref.name, source.config_map_key_ref.key)
    raise ValueError("the reference names nothing")


def result_key(call: str) -> str:
    return f"taskruntoolcall/{call}/{_RESULT}"


def arguments_key(call: str) -> str:
    return f"taskruntoolcall/{call}/{_ARGUMENTS}"


def stored_key(name: str, key: str) -> str:
    return f"configmap/{name}/{key}"


def write_page(messages: Iterable[Message]) -> str:
    """The text of a page."""
    return "".join(f"{message.model_dump_json(by_alias=True, exclude_none=True)}\n" for message in messages)


def read_page(text: str) -> list[Message]:
    """The messages of a page. Raises ValueError when the text is none."""
    return [Message.model_validate_json(line) for line in text.split("\n") if line]


def split_window(window: Sequence[Message]) -> tuple[list[Message], Message | None, list[Message]]:
    """What stands before the reference to earlier messages, the reference, and what comes after it."""
    at = next((i for i, message in enumerate(window) if message.role == "earlier"), None)
    if at is None:
        return [], None, list(window)
    return list(window[:at]), window[at], list(window[at + 1 :])


_HEAD = 2
SUMMARY_INTRODUCTION = "Summary of the conversation so far, in place of its earlier messages:"


def split_head(window: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """The messages that the conversation began with, which stay in sight, and all others; for a window without a
    reference to earlier messages.
    """
    spoken = next((i for i, message in enumerate(window) if message.role not in ("system", "user")), len(window))
    head = min(_HEAD, spoken)
    return list(window[:head]), list(window[head:])


def holds_view(messages: Sequence[Message]) -> bool:
    """Whether nothing before these messages, but the beginning of the conversation, is read by the model."""
    at = _find_summary(messages)
    return at is not None and len(_before(messages, at)) >= (messages[at].keeps or 0)


def build_view(head: Sequence[Message], messages: Sequence[Message]) -> list[Message]:
    """What the model reads of a conversation that begins with ``head``: from its last summary on, if there is one."""
    at = _find_summary(messages)
    if at is None:
        return [*head, *messages]
    before, keeps = _before(messages, at), messages[at].keeps or 0
    kept = before[max(0, len(before) - keeps) :]
    return [*head, messages[at], *kept, *messages[at + 1 :]]


def speak_summary(message: Message) -> Message:
    """A summary as the model reads it: no provider knows the role. Other messages stay as they are."""
    if message.role != "summary":
        return message
    return Message(role="user", content=f"{SUMMARY_INTRODUCTION}\n\n{message.content}")


def _find_summary(messages: Sequence[Message]) -> int | None:
    return next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == "summary"), None)


def _before(messages: Sequence[Message], at: int) -> list[Message]:
    return [message for message in messages[:at] if message.role != "summary"]
