"""The words of a request, the same in whatever a person reads it. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from kubechain_human_bridge.channels.base import Ask

_MAX_INDENTED = 65_536
"""Characters of JSON that is indented: nobody reads on after that."""

_MAX_DEPTH = 16
"""Levels of JSON that is indented: a model can write it so deep that its indents are a thousand times its size."""

# As in the inbox page: controls, directions, joiners, fillers, variations, tags, and halves of characters.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)

_AGAIN = "This request may have reached you before: it is the same one, and one answer is enough."


def headline(ask: Ask) -> str:
    """What is wanted, in one line."""
    if ask.kind == "Approval":
        return f"Agent {ask.agent} asks for approval to call {ask.tool}"
    return f"Agent {ask.agent} asks a question"


def facts(ask: Ask) -> list[tuple[str, str]]:
    """What the request is about: name and value, only what is known."""
    expires = f"{ask.expires_at:%Y-%m-%d %H:%M:%S} UTC" if ask.expires_at else ""
    known = [
        ("Tool", ask.tool if ask.kind == "Approval" else ""),
        ("Agent", ask.agent),
        ("Task", f"{ask.call.namespace}/{ask.task}"),
        ("The task's message", ask.user_message),
        ("Answer before", expires),
    ]
    return [(name, value) for name, value in known if value]


def pretty_arguments(text: str) -> str:
    """The JSON indented, as far as it is JSON and the indents do not outgrow it; with nothing in it that hides."""
    try:
        parsed = json.loads(text) if len(text) <= _MAX_INDENTED else None
        indented = json.dumps(parsed, indent=2, ensure_ascii=False) if parsed and _is_shallow(parsed) else text
    except (ValueError, RecursionError):
        indented = text
    return reveal(indented)


def reveal(text: str) -> str:
    """The text with JSON's escapes, which mean the same, for what can not be seen and could mislead."""
    return _HIDDEN.sub(lambda hit: json.dumps(hit[0])[1:-1], text)


def _is_shallow(parsed: Any) -> bool:
    level = [parsed]
    for _ in range(_MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return True
    return False


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def cut(text: str, limit: int) -> str:
    """At most so many characters of the text, which says so where something is missing."""
    ending = "\n… (cut: the rest is on the request's page)"
    return text if len(text) <= limit else text[: limit - len(ending)] + ending


def notice(ask: Ask) -> str:
    """The sentence that this may be a repetition; empty where it can not be."""
    return _AGAIN if ask.again else ""


def one_line(text: str, limit: int = 200) -> str:
    """The text without line breaks and control characters, for a header."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
