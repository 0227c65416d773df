"""What Slack posts when somebody uses a button or sends a form. Pure.

https://docs.slack.dev/authentication/verifying-requests-from-slack
https://docs.slack.dev/interactivity/handling-user-interaction#payloads
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson
from yarl import URL

from kubechain_human_bridge.channels.ask_text import one_line
from kubechain_human_bridge.channels.slack_blocks import INPUT_ACTION, INPUT_BLOCK
from kubechain_human_bridge.channels.standard_webhooks import SignatureError, check_age

HEADER_SIGNATURE = "X-Slack-Signature"
HEADER_TIMESTAMP = "X-Slack-Request-Timestamp"

_SLACK_HOSTS = ("slack.com", "slack-gov.com")


class InteractionError(ValueError):
    """Not an interaction that Slack would send."""


@dataclass(frozen=True)
class Place:
    """The message that asked, and the token in it."""

    token: str
    conversation: str
    ts: str

    def to_metadata(self) -> str:
        """The place as the text of a form's private_metadata."""
        return orjson.dumps([self.token, self.conversation, self.ts]).decode()

    @classmethod
    def from_metadata(cls, text: str) -> Place:
        """The place in a form's private_metadata. Raises InteractionError."""
        try:
            parts = orjson.loads(text)
        except orjson.JSONDecodeError:
            parts = None
        if not isinstance(parts, list) or len(parts) != 3 or not all(isinstance(part, str) for part in parts):
            raise InteractionError("the form is not one of ours")
        return cls(*parts)


@dataclass(frozen=True)
class Responder:
    id: str
    name: str

    @property
    def by(self) -> str:
        """The name in which the answer is given."""
        return f"slack:{self.id} ({self.name})" if self.name else f"slack:{self.id}"


@dataclass(frozen=True)
class Click:
    """Somebody used a button."""

    who: Responder
    place: Place
    action: str
    trigger_id: str
    response_url: str


@dataclass(frozen=True)
class Form:
    """Somebody sent a form."""

    who: Responder
    place: Place
    callback_id: str
    text: str


def verify_slack(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raises SignatureError unless Slack signed this within the last minutes."""
    stamp, given = headers.get(HEADER_TIMESTAMP, ""), headers.get(HEADER_SIGNATURE, "")
    if not (stamp and given):
        raise SignatureError("the request does not carry Slack's signature")
    check_age(stamp, now)
    digest = hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(f"v0={digest}".encode(), given.encode(errors="backslashreplace")):
        raise SignatureError("Slack's signature does not match")


def parse_interaction(body: bytes) -> Click | Form | None:
    """The interaction in a body; None for one that asks nothing of us. Raises InteractionError."""
    payload = _read_payload(body)
    match payload.get("type"):
        case "block_actions":
            return _parse_click(payload)
        case "view_submission":
            return _parse_form(payload)
    return None


def is_slack_url(url: str, base_url: str | None) -> bool:
    """Whether a response_url leads to Slack, or to where the channel says Slack is."""
    try:
        target, base = URL(url), URL(base_url or "")
    except ValueError:
        return False
    host = target.host or ""
    if base.host and (target.scheme, host) == (base.scheme, base.host):
        return True
    return target.scheme == "https" and any(host == slack or host.endswith(f".{slack}") for slack in _SLACK_HOSTS)


def _read_payload(body: bytes) -> dict[str, Any]:
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=10))
        payload = orjson.loads(fields["payload"])
    except (ValueError, KeyError):
        raise InteractionError("the body has no payload in JSON") from None
    if not isinstance(payload, dict):
        raise InteractionError("the payload is not an object")
    return payload


def _parse_click(payload: dict[str, Any]) -> Click | None:
    actions = payload.get("actions")
    action = actions[0] if isinstance(actions, list) and actions else None
    if not isinstance(action, dict) or not isinstance(action.get("value"), str):
        return None
    place = Place(action["value"], _text(payload, "container", "channel_id"), _text(payload, "container", "message_ts"))
    return Click(
        _responder(payload),
        place,
        _text(action, "action_id"),
        _text(payload, "trigger_id"),
        _text(payload, "response_url"),
    )


def _parse_form(payload: dict[str, Any]) -> Form:
    return Form(
        _responder(payload),
        Place.from_metadata(_text(payload, "view", "private_metadata")),
        _text(payload, "view", "callback_id"),
        _text(payload, "view", "state", "values", INPUT_BLOCK, INPUT_ACTION, "value").strip(),
    )


def _responder(payload: dict[str, Any]) -> Responder:
    who = one_line(_text(payload, "user", "id"), 64)
    if not who:
        raise InteractionError("the payload does not say who it was")
    return Responder(who, one_line(_text(payload, "user", "username") or _text(payload, "user", "name"), 100))


def _text(value: Any, *path: str) -> str:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
