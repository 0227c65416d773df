"""The chunks of a streamed Chat Completions reply -> the ``chat.completion`` that they are cut from. Pure.

Nothing is lost on the way: fields of a delta that we do not model grow like those that we do, so that
``openai_mapping.parse_reply`` reads the same as from a reply in one piece. Compatible servers differ in how they tell
parallel calls apart: by ``index``, or by ``id`` alone with every index 0 or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubechain_llm_gateway.protocols.sse import FailureInStreamError, decode_event, status_of
from kubechain_llm_gateway.protocols.stream_merge import Node, ValueCount, build, count_values, merge
from kubechain_llm_gateway.protocols.wire_json import join_halves

_DONE = b"[DONE]"
_DROPPED = frozenset({"choices", "object", "obfuscation"})
_STATUSES = {
    "invalid_request_error": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "context_length_exceeded": 400,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
}


class ChatAccumulator:
    """Puts one reply together."""

    def __init__(self) -> None:
        self._values = ValueCount()
        self._fields: Node = {}
        self._choices: dict[int, _Choice] = {}
        self._ended = False

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def complete(self) -> bool:
        return self._ended or any(choice.fields.get("finish_reason") for choice in self._choices.values())

    def add(self, data: bytes) -> str:
        if data.strip() == _DONE:
            self._ended = True
            return ""
        event = decode_event(data)
        if not isinstance(event, dict):
            raise ValueError("a chunk is an object")
        if event.get("error"):
            raise FailureInStreamError(_status_of(event["error"]), event)
        self._values.add(_set_fields(self._fields, event, _DROPPED))
        if "object" in event:
            self._fields["object"] = "chat.completion"
        return "".join([self._add_choice(choice) for choice in _mappings(event.get("choices"))])

    def _add_choice(self, wire: Mapping[str, Any]) -> str:
        index = wire.get("index")
        index = index if isinstance(index, int) else 0
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index, self._values)
        text = choice.add(wire)
        return text if index == 0 else ""

    def build_reply(self) -> Any:
        choices = [self._choices[index].build() for index in sorted(self._choices)]
        return join_halves({**self._fields, "choices": choices})


class _Choice:
    """One answer; we ask for one only."""

    def __init__(self, index: int, values: ValueCount) -> None:
        self.fields: Node = {"index": index}
        self._values = values
        self._message: Node = {}
        self._calls: list[_Call] = []
        self._latest: dict[Any, _Call] = {}

    def add(self, wire: Mapping[str, Any]) -> str:
        logprobs = wire.get("logprobs")
        if isinstance(logprobs, Mapping):
            self._values.add(merge(self.fields, {"logprobs": logprobs}))
        self._values.add(_set_fields(self.fields, wire, _CHOICE_OWN if logprobs is not None else _CHOICE_DELTA))
        whole = wire.get("message")
        if isinstance(whole, Mapping):  # some servers end with the whole message, others send nothing else
            self._message, self._calls, self._latest = {}, [], {}
        delta = whole or wire.get("delta")
        return self._add_delta(delta) if isinstance(delta, Mapping) else ""

    def _add_delta(self, delta: Mapping[str, Any]) -> str:
        calls = delta.get("tool_calls")
        if calls is not None:
            for call in _mappings(calls):
                self._values.add(self._find_call(call).add(call))
            delta = {key: value for key, value in delta.items() if key != "tool_calls"}
        self._values.add(merge(self._message, delta))
        content = delta.get("content")
        return content if isinstance(content, str) else _text_of_parts(content)

    def _find_call(self, wire: Mapping[str, Any]) -> _Call:
        index, call_id = wire.get("index"), wire.get("id")
        if not isinstance(index, int | str):
            index = None
        known = self._latest.get(index)
        if known is None or _is_another(known, index, call_id, wire.get("function")):
            known = _Call()
            self._calls.append(known)
            self._values.add(1)
            self._latest[None] = self._latest[index] = known
        return known

    def build(self) -> dict[str, Any]:
        message = build(self._message)
        if self._calls:
            message["tool_calls"] = [call.build() for call in self._calls]
        return {**build(self.fields), "message": message}


_CHOICE_DELTA = frozenset({"index", "delta", "message"})
_CHOICE_OWN = _CHOICE_DELTA | {"logprobs"}


def _is_another(known: _Call, index: Any, call_id: Any, function: Any) -> bool:
    if call_id and known.call_id and call_id != known.call_id:
        return True
    named = isinstance(function, Mapping) and bool(function.get("name"))
    return index is None and named and not (call_id and call_id == known.call_id)


class _Call:
    """One tool call. The argument text grows by its pieces; a name may, too, or come again with every piece."""

    def __init__(self) -> None:
        self._fields: Node = {}
        self._function: Node | None = None
        self._name = ""

    @property
    def call_id(self) -> Any:
        return self._fields.get("id")

    def add(self, wire: Mapping[str, Any]) -> int:
        """Takes in a piece of the call; how many values came to it."""
        values = merge(self._fields, {key: value for key, value in wire.items() if key not in ("index", "function")})
        function = wire.get("function")
        if not isinstance(function, Mapping):
            return values
        if self._function is None:
            self._function = {}
        name = function.get("name")
        if isinstance(name, str) and name != self._name:
            self._name += name
        values += merge(self._function, function)
        if "name" in function:
            self._function["name"] = self._name
        return values

    def build(self) -> dict[str, Any]:
        fields: dict[str, Any] = build(self._fields)
        return fields if self._function is None else {**fields, "function": build(self._function)}


def _set_fields(node: Node, wire: Mapping[str, Any], but: frozenset[str]) -> int:
    """Takes in the fields that are about the whole reply. Each comes whole, and its last value counts. Returns how many
    values came to the node.
    """
    values = 0
    for key, value in wire.items():
        if key not in but and (value is not None or key not in node):
            values += count_values(value) - (count_values(node[key]) if key in node else 0)
            node[key] = value
    return values


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _text_of_parts(content: Any) -> str:
    return "".join(p["text"] for p in _mappings(content) if isinstance(p.get("text"), str))


def _status_of(error: Any) -> int:
    if not isinstance(error, Mapping):
        return 502
    status = status_of(error.get("code"), _STATUSES)
    return status if status != 502 else status_of(error.get("type"), _STATUSES)
