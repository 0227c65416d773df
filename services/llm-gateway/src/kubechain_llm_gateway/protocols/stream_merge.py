"""Puts the pieces of a JSON value together again, as streams of Chat Completions cut it.

Pure. Text grows by its pieces, objects by their fields, lists by their items; an item with an ``index`` goes on with
the one of the same index. Pieces of text are kept as a list until ``build``, so that a long text costs no more than its
length. Everything else is counted: a value takes up to thirty times the memory of its JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kubechain_llm_gateway.protocols.wire_json import ReplyTooLargeError

_WHOLE = frozenset({"id", "type", "role", "name", "format", "signature", "object", "model", "status"})
"""Fields that name something: they come whole, perhaps again and again."""

Node = dict[str, Any]


MAX_VALUES = 100_000
"""Values of one reply, the pieces of its texts aside."""


class Pieces(list[str]):
    """A text under construction."""


class Parts(list[Any]):
    """A list under construction; ``latest`` has the newest item of each index."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(items)
        self.latest: dict[int, Node] = {}


class ValueCount:
    """How many values a reply holds."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, values: int) -> None:
        """Counts so many values more. Raises ReplyTooLargeError."""
        self._count += values
        if self._count > MAX_VALUES:
            raise ReplyTooLargeError(f"it holds more than {MAX_VALUES:,} values")


def count_values(value: Any) -> int:
    """The number of values: the value itself and all that it holds."""
    if not isinstance(value, dict | list):
        return 1
    count, level = 0, [value]
    while level:
        count += len(level)
        containers = [item for item in level if isinstance(item, dict | list)]
        level = [part for item in containers for part in (item.values() if isinstance(item, dict) else item)]
    return count


def merge(node: Node, delta: Mapping[str, Any]) -> int:
    """Take the fields of ``delta`` into ``node``; returns how many values came to it, the pieces of its texts aside."""
    fields, values = len(node), 0
    for key, value in delta.items():
        if isinstance(value, str):
            values += _merge_text(node, key, value)
        elif value is None:
            node.setdefault(key, None)
        elif isinstance(value, Mapping):
            known = node.get(key)
            if not isinstance(known, dict):
                known = node[key] = {}
            values += merge(known, value)
        elif isinstance(value, list):
            known = node.get(key)
            if not isinstance(known, Parts):
                known = node[key] = _as_parts(known)
            values += _merge_list(known, value)
        else:
            node[key] = value
    return values + len(node) - fields


def _merge_text(node: Node, key: str, text: str) -> int:
    if key in _WHOLE:
        if text or not node.get(key):
            node[key] = text
        return 0
    known = node.get(key)
    if isinstance(known, Pieces):
        known.append(text)
    elif isinstance(known, Parts):
        known.append({"type": "text", "text": text})
        return 1
    else:
        node[key] = Pieces([text])
    return 0


def _as_parts(known: Any) -> Parts:
    """Text that goes on as a list of parts."""
    text = "".join(known) if isinstance(known, Pieces) else ""
    return Parts([{"type": "text", "text": text}] if text else [])


def _merge_list(node: Parts, items: list[Any]) -> int:
    values = 0
    for item in items:
        if not isinstance(item, Mapping):
            node.append(item)
            values += count_values(item)
            continue
        known = _find_item(node, item)
        if known is None:
            known = {}
            node.append(known)
            values += 1
        values += merge(known, item)
        index = item.get("index")
        if isinstance(index, int):
            node.latest[index] = known
    return values


def _find_item(node: Parts, item: Mapping[str, Any]) -> Node | None:
    index = item.get("index")
    known = node.latest.get(index) if isinstance(index, int) else None
    return known if known is not None and item.get("type", known.get("type")) == known.get("type") else None


def build(node: Any) -> Any:
    """The value without anything under construction in it."""
    if isinstance(node, Pieces):
        return "".join(node)
    if isinstance(node, dict):
        return {key: build(value) for key, value in node.items()}
    if isinstance(node, list):
        return [build(item) for item in node]
    return node
