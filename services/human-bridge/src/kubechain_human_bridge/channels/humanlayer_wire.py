"""What is said to the HumanLayer API, and what its answers mean. Pure.

Whatever the model wrote as arguments, the request is valid: what is not a JSON object, or far too long to be read by a
person, is shown as text.
"""

from __future__ import annotations

import json
from typing import Any

from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_human_bridge.channels.ask_text import one_line
from kubechain_human_bridge.channels.base import Ask, Given, Kind

MAX_TEXT = 32_768
"""Characters of arguments or of a message that are sent."""

_MAX_COMMENT = 65_536
_MAX_RESPONSE = 262_144
_MAX_BY = 200
_NO_WORDS = "[no text]"


def collection_of(kind: Kind) -> str:
    """The API's name for requests of this kind."""
    return "function_calls" if kind == "Approval" else "contact_requests"


def encode_request(spec: ContactChannelSpec, ask: Ask) -> bytes:
    """The body that creates the request, as JSON."""
    try:
        return json.dumps(build_request(spec, ask, _build_kwargs(ask.arguments))).encode()
    except RecursionError:  # it was not too deep to be read, but is to be written
        return json.dumps(build_request(spec, ask, _as_text(ask.arguments))).encode()


def build_request(spec: ContactChannelSpec, ask: Ask, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The body that creates the request."""
    channel = _build_channel(spec)
    if ask.kind == "Approval":
        what: dict[str, Any] = {"fn": ask.tool, "kwargs": kwargs, "channel": channel}
    else:
        what = {"msg": shorten(ask.message, MAX_TEXT), "channel": channel}
        if spec.email is not None and spec.email.subject:
            what["subject"] = spec.email.subject
    return {"run_id": ask.run_id, "call_id": ask.external_call_id, "spec": what}


def _build_channel(spec: ContactChannelSpec) -> dict[str, Any]:
    if spec.slack is not None:
        slack = {
            "channel_or_user_id": spec.slack.channel_or_user_id,
            "context_about_channel_or_user": spec.slack.context_about_channel_or_user,
            "allowed_responder_ids": spec.slack.allowed_responder_ids,
        }
        return {"slack": _without_none(slack)}
    if spec.email is not None:
        email = {
            "address": spec.email.address,
            "context_about_user": spec.email.context_about_user,
            "experimental_subject_line": spec.email.subject,
        }
        return {"email": _without_none(email)}
    return {}


def _build_kwargs(arguments: str) -> dict[str, Any]:
    if len(arguments) <= MAX_TEXT:
        try:
            parsed = json.loads(arguments or "{}", parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, dict):
            return parsed
    return _as_text(arguments)


def _as_text(arguments: str) -> dict[str, Any]:
    return {"arguments": shorten(arguments, MAX_TEXT)}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def read_answer(kind: Kind, body: object, otherwise: str) -> Given | None:
    """The answer in a request as the API shows it; None while there is none.

    ``otherwise`` names the person where the API does not.
    """
    status = body.get("status") if isinstance(body, dict) else None
    if not isinstance(status, dict):
        return None
    by = _read_person(status) or otherwise
    if kind == "Approval":
        approved = status.get("approved")
        if not isinstance(approved, bool):
            return None
        comment = _text(status.get("comment")) or _text(status.get("reject_option_name"))
        return Given(by=by, approved=approved, comment=shorten(comment, _MAX_COMMENT))
    if not status.get("responded_at"):
        return None
    response = _text(status.get("response")) or _text(status.get("response_option_name")) or _NO_WORDS
    return Given(by=by, response=shorten(response, _MAX_RESPONSE))


def _read_person(status: dict[str, Any]) -> str:
    for where in (status.get("user_info"), status.get("slack_context")):
        if isinstance(where, dict):
            for name in ("email", "email_address", "username", "user_name", "name", "user_id", "id"):
                if found := one_line(_text(where.get(name)), _MAX_BY):
                    return found
        elif found := one_line(_text(where), _MAX_BY):
            return found
    return ""


def _text(value: object) -> str:
    """Text that can be stored: half characters, which JSON can spell, are replaced."""
    return value.encode(errors="replace").decode().strip() if isinstance(value, str) else ""
