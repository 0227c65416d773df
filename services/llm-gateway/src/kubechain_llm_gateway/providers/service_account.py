"""The key of a Google service account, as the JSON file that Google gives out. Pure."""

from __future__ import annotations

from typing import Any

from kubechain_llm_gateway.protocols.wire_json import decode

_FIELDS = ("client_email", "private_key", "token_uri")


def parse_service_account(text: str) -> dict[str, Any] | str:
    """The file's fields, or what is wrong with it, without any of its content."""
    try:
        info = decode(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return "is not the JSON key file of a Google service account"
    if not isinstance(info, dict) or info.get("type") != "service_account":
        return 'is not the JSON key file of a Google service account: its "type" is not "service_account"'
    missing = [name for name in _FIELDS if not isinstance(info.get(name), str) or not info[name]]
    if missing:
        return f"is not a whole JSON key file of a Google service account: it has no {', '.join(missing)}"
    return info
