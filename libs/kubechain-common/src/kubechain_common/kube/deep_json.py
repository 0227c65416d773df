"""JSON of the API server, which takes objects of 10,000 levels, where orjson reads 1,024.

One such object would make every list that it is in unreadable, and so stop its kind for all namespaces. What lies too
deep is read as null; ``api.nesting`` says what becomes of the rest.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

_DEEPEST = 512
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)


def load(text: bytes) -> Any:
    """The value of a JSON text, in which null stands for what is nested too deeply. Raises orjson.JSONDecodeError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        cut = _cut(text)
        if cut is None:
            raise
        return orjson.loads(cut)


def _cut(text: bytes) -> bytes | None:
    """The text with null for the values below the deepest level; None if there are none, or it ends within one."""
    parts: list[bytes] = []
    depth = end = begin = 0
    for token in _TOKENS.finditer(text):
        match token.group():
            case b"[" | b"{":
                depth += 1
                if depth == _DEEPEST + 1:
                    begin = token.start()
            case b"]" | b"}":
                if depth == _DEEPEST + 1:
                    parts += (text[end:begin], b"null")
                    end = token.end()
                depth -= 1
    return b"".join([*parts, text[end:]]) if parts else None
