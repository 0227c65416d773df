"""Puts the pieces of a JSON value together again, as streams of Chat Completions cut it.

Pure. Text grows by its pieces, objects by their fields, lists by their items; an item with an ``index`` goes on with
the one of the same index. Pieces of text are kept as a list until ``build``, so that a long text costs no more than its
length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WHOLE = frozenset({"id", "type", "role", "name", "format", "signature", "object", "model", "status"})
"""Fields that name something: they come whole, perhaps again and again."""

Node = dict[str, Any]


class Pieces(list[str]):
    """A text under construction."""


def merge(node: Node, delta: Mapping[str, Any]) -> None:
    """Take the fields of ``delta`` into ``node``."""
    for key, value in delta.items():
        if isinstance(value, str):
            _merge_text(node, key, value)
        elif value is None:
            node.setdefault(key, None)
        elif isinstance(value, Mapping):
            known = node.get(key)
            if not isinstance(known, dict):
                known = node[key] = {}
            merge(known, value)
        elif isinstance(value, list):
            known = node.get(key)
            if not isinstance(known, list) or isinstance(known, Pieces):
                known = node[key] = _as_parts(known)
            _merge_list(known, value)
        else:
            node[key] = value


def _merge_text(node: Node, key: str, text: str) -> None:
    if key in _WHOLE:
        if text or not node.get(key):
            node[key] = text
        return
    known = node.get(key)
    if isinstance(known, Pieces):
        known.append(text)
    elif isinstance(known, list):
        known.append({"type": "text", "text": text})
    else:
        node[key] = Pieces([text])


def _as_parts(known: Any) -> list[Any]:
    """Text that goes on as a list of parts."""
    text = "".join(known) if isinstance(known, Pieces) else ""
    return [{"type": "text", "text": text}] if text else []


def _merge_list(node: list[Any], items: list[Any]) -> None:
    for item in items:
        if not isinstance(item, Mapping):
            node.append(item)
            continue
        known = _find_item(node, item)
        if known is None:
            known = {}
            node.append(known)
        merge(known, item)


def _find_item(node: list[Any], item: Mapping[str, Any]) -> Node | None:
    index = item.get("index")
    if not isinstance(index, int):
        return None
    for known in reversed(node):
        if isinstance(known, dict) and known.get("index") == index:
            same = "type" not in item or known.get("type") == item["type"]
            return known if same else None
    return None


def build(node: Any) -> Any:
    """The value without anything under construction in it."""
    if isinstance(node, Pieces):
        return "".join(node)
    if isinstance(node, dict):
        return {key: build(value) for key, value in node.items()}
    if isinstance(node, list):
        return [build(item) for item in node]
    return node
