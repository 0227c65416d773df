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
