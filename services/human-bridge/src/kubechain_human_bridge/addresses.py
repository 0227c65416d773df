"""Where people and programs reach us, as the links in messages spell it. Pure."""

from __future__ import annotations

from urllib.parse import quote

from kubechain_common.messages import ObjectRef
from kubechain_human_bridge.settings import BridgeSettings

ANSWER_PATH = "/answer"


def find_base_url(settings: BridgeSettings) -> str:
    """The address under which human-bridge is reached, without a slash at its end."""
    return (settings.public_url or f"http://127.0.0.1:{settings.port}").rstrip("/")


def build_page_link(base_url: str, call: ObjectRef) -> str:
    """The link to the request, which is shown to whoever signs in."""
    return f"{base_url}/#{quote(call.namespace)}/{quote(call.name)}"


def build_callback_url(base_url: str, channel: ObjectRef) -> str:
    """Where the program behind a webhook channel sends its answers."""
    return f"{base_url}/callbacks/{quote(channel.namespace)}/{quote(channel.name)}"
