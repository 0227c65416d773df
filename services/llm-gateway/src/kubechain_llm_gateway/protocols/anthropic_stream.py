"""The events of a streamed Messages reply -> the ``message`` that they are cut from. Pure.

A delta grows the field of its block that it is named after (``text_delta``: ``text``); a signature comes whole,
citations one by one, and a tool's input as JSON text in pieces. So blocks that we do not model come through unharmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubechain_llm_gateway.protocols.sse import FailureInStreamError, decode_event, status_of
from kubechain_llm_gateway.protocols.stream_merge import Node, Pieces, ValueCount, build, count_values
from kubechain_llm_gateway.protocols.wire_json import join_halves, parse_arguments

_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class MessageAccumulator:
    """Puts one reply together."""

    def __init__(self) -> None:
        self._values = ValueCount()
        self._message: Node = {}
        self._blocks: dict[int, Node] = {}
        self._inputs: dict[int, Pieces] = {}
        self._ended = False

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def complete(self) -> bool:
        return self._ended or bool(self._message.get("stop_reason"))

    def add(self, data: bytes) -> str:
        event = decode_event(data)
        if not isinstance(event, dict):
            raise ValueError("an event is an object")
        match event.get("type"):
            case "content_block_delta":
                return self._add_delta(_index_of(event), _mapping(event, "delta"))
            case "content_block_start":
                return self._start_block(_index_of(event), _mapping(event, "content_block"))
            case "message_start":
                self._message = dict(_mapping(event, "message"))
            case "message_delta":
                self._end_message(event)
            case "message_stop":
                self._ended = True
            case _ if event.get("error"):
                error = event["error"]
                raise FailureInStreamError(
                    status_of(error.get("type") if isinstance(error, Mapping) else None, _STATUSES), event
                )
        return ""

    def _start_block(self, index: int, block: Mapping[str, Any]) -> str:
        self._values.add(count_values(block))
        self._blocks[index] = {k: Pieces([v]) if k == "text" and isinstance(v, str) else v for k, v in block.items()}
        return _shown(block)

    def _add_delta(self, index: int, delta: Mapping[str, Any]) -> str:
        block = self._blocks.get(index)
        if block is None:
            raise ValueError("a delta belongs to a block")
        match delta.get("type"):
            case "input_json_delta":
                self._inputs.setdefault(index, Pieces()).append(str(delta.get("partial_json") or ""))
            case "citations_delta":
                self._values.add(count_values(delta.get("citation")))
                _list_of(block, "citations").append(delta.get("citation"))
            case "signature_delta":
                block["signature"] = delta.get("signature")
            case _:
                self._values.add(_grow(block, delta))
                return _shown(delta) if block.get("type") == "text" else ""
        return ""

    def _end_message(self, event: Mapping[str, Any]) -> None:
        """Takes in what is known at the end only. Counts of tokens are totals, not increments."""
        for key, value in {**event, **_mapping(event, "delta")}.items():
            if key not in ("type", "delta", "usage") and (value is not None or key not in self._message):
                self._values.add(count_values(value))
                self._message[key] = value
        usage = event.get("usage")
        if isinstance(usage, Mapping):
            known = self._message.get("usage")
            said = {key: value for key, value in usage.items() if value is not None}
            self._values.add(count_values(said))
            self._message["usage"] = {**(known if isinstance(known, Mapping) else {}), **said}

    def build_reply(self) -> Any:
        content = [self._build_block(index) for index in sorted(self._blocks)]
        return join_halves({**self._message, "content": content})

    def _build_block(self, index: int) -> dict[str, Any]:
        block: dict[str, Any] = build(self._blocks[index])
        text = "".join(self._inputs.get(index, ()))
        return {**block, "input": parse_arguments(text)} if text.strip() else block


def _grow(block: Node, delta: Mapping[str, Any]) -> int:
    """Returns how many values came to the block, the pieces of its texts aside."""
    values = 0
    for key, value in delta.items():
        known = block.get(key)
        if key == "type":
            continue
        if isinstance(value, str) and isinstance(known, Pieces):
            known.append(value)
        elif isinstance(value, str) and isinstance(known, str):
            block[key] = Pieces([known, value])
        else:
            values += count_values(value) - (count_values(known) if key in block else 0)
            block[key] = value
    return values


def _list_of(block: Node, key: str) -> list[Any]:
    known = block.get(key)
    if not isinstance(known, list):
        known = block[key] = []
    return known


def _shown(delta: Mapping[str, Any]) -> str:
    text = delta.get("text")
    return text if isinstance(text, str) and delta.get("type") in ("text", "text_delta") else ""


def _mapping(event: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = event.get(key)
    if not isinstance(value, Mapping):
        raise ValueError(f"an event without its {key}")
    return value


def _index_of(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    if not isinstance(index, int):
        raise ValueError("a block has an index")
    return index
