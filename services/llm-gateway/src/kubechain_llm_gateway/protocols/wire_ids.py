"""Tool call ids and tool names that a provider takes.

Conversations may have begun with another provider (or with a person), and models make up names of tools that are not
there, which come back to them in the conversation.
"""

from __future__ import annotations

import hashlib
import re

_SAFE = re.compile(r"[a-zA-Z0-9_-]+")
_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")


def fit_id(call_id: str, max_length: int) -> str:
    """The id itself when it is safe and short enough; else a form of it that is, the same one every time."""
    if len(call_id) <= max_length and _SAFE.fullmatch(call_id):
        return call_id
    digest = hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return _UNSAFE.sub("_", call_id[: max_length - len(digest) - 1]) + "_" + digest
