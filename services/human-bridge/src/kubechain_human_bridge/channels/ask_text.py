"""The words of a request, the same in whatever a person reads it. Pure."""

from __future__ import annotations

import json

from kubechain_human_bridge.channels.base import Ask

_AGAIN = "This request may have reached you before: it is the same one, and one answer is enough."


def headline(ask: Ask) -> str:
    """What is wanted, in one line."""
    if ask.kind == "Approval":
        return f"Agent {ask.agent} asks for approval to call {ask.tool}"
    return f"Agent {ask.agent} asks a question"


def facts(ask: Ask) -> list[tuple[str, str]]:
    """What it is about: name and value, only what is known."""
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
    """The JSON indented, as far as it is JSON."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def cut(text: str, limit: int) -> str:
    """At most so many characters, saying so where something is missing."""
    ending = "\n… (cut: the rest is on the request's page)"
    return text if len(text) <= limit else text[: limit - len(ending)] + ending


def notice(ask: Ask) -> str:
    """That this may be a repetition, or nothing."""
    return _AGAIN if ask.again else ""


def one_line(text: str, limit: int = 200) -> str:
    """Without line breaks and control characters, for a header."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
