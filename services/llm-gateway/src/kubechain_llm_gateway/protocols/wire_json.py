"""JSON to and from providers, fast where it can be and right where orjson gives up.

orjson refuses lone surrogates and integers over 64 bits, both of which models do write; the standard library takes
them.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from kubechain_common.api.tool_arguments import load_json
from kubechain_common.api.unicode_text import mend

UNPARSABLE = "_unparsable_arguments"
"""The field that carries a tool call's argument text when it is no JSON object."""


MAX_DOCUMENT = 8 * 1024 * 1024
"""Bytes of JSON that are parsed as a whole: an event of a stream, or a reply that is none."""

MAX_CONTAINERS = 250_000
"""Objects and lists in JSON that is parsed as a whole: an empty list takes twenty times the memory of its two
characters.
"""


class ReplyTooLargeError(ValueError):
    """Reading the reply could take the memory of the process; the text is a clause about the reply that says why."""


def refuse_oversized(raw: bytes) -> None:
    """Checks that the JSON can be read within bounds of memory. Raises ReplyTooLargeError."""
    if len(raw) > MAX_DOCUMENT:
        raise ReplyTooLargeError(f"it has {len(raw):,} bytes, and {MAX_DOCUMENT:,} is the most")
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
        raise ReplyTooLargeError(f"it holds more than {MAX_CONTAINERS:,} objects and lists")


def encode(value: Any) -> bytes:
    """The value as JSON text in UTF-8."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def encode_text(value: Any) -> str:
    return encode(value).decode()


def decode(raw: bytes) -> Any:
    """The value of a JSON text; half a surrogate pair, which no UTF-8 text can hold, becomes U+FFFD.

    Raises:
        ReplyTooLargeError: it is a ValueError, too.
        ValueError: it is no JSON.
    """
    refuse_oversized(raw)
    value = json.loads(raw)
    return _repair(value) if b"\\ud" in raw or b"\\uD" in raw else value


def join_halves(value: Any) -> Any:
    """A decoded value in which half characters that do not belong together are U+FFFD, and halves of one are one."""
    try:
        orjson.dumps(value)
    except TypeError:  # or something else that it does not take; repairing changes only text
        return _repair(value)
    return value


def _repair(value: Any) -> Any:
    match value:
        case str():
            return mend(value)
        case list():
            return [_repair(item) for item in value]
        case dict():
            return {_repair(key): _repair(item) for key, item in value.items()}
        case _:
            return value


def parse_arguments(text: str) -> dict[str, Any]:
    """A tool call's arguments as an object; text that is not one is kept whole under ``_unparsable_arguments``."""
    if not text.strip():
        return {}
    try:
        value = load_json(text)
    except (ValueError, RecursionError):
        return {UNPARSABLE: text}
    return value if isinstance(value, dict) else {UNPARSABLE: text}
