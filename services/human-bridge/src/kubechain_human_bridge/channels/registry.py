"""Which channel serves which ContactChannel. A channel's module, and what it needs, is imported when one is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import aiohttp

from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.messages import ObjectRef
from kubechain_common.messages.human import REASON_HUMANLAYER_FAILED, REASON_REQUEST_FAILED
from kubechain_human_bridge.addresses import build_callback_url, find_base_url
from kubechain_human_bridge.channels.base import Channel
from kubechain_human_bridge.channels.call_token import CallTokens
from kubechain_human_bridge.settings import BridgeSettings

Road: TypeAlias = Literal["humanlayer", "smtp", "slack", "webhook", "inbox"]


def find_road(spec: ContactChannelSpec) -> Road:
    """How a request travels to the person."""
    if spec.api_key_from is not None:
        return "humanlayer"
    match spec.type:
        case "email":
            return "smtp"
        case "slack":
            return "slack"
        case "webhook":
            return "webhook"
        case "inbox":
            return "inbox"


def is_polled(spec: ContactChannelSpec) -> bool:
    """Whether the other side has to be asked for its answers."""
    return find_road(spec) == "humanlayer"


def failed_reason(spec: ContactChannelSpec) -> str:
    """Reason of the event when a request cannot be sent, also of a channel that cannot be built."""
    return REASON_HUMANLAYER_FAILED if find_road(spec) == "humanlayer" else REASON_REQUEST_FAILED


def build_channel(
    channel: ContactChannel,
    secrets: Mapping[str, str],
    settings: BridgeSettings,
    session: aiohttp.ClientSession,
    tokens: CallTokens,
) -> Channel:
    """The channel, ready for use. Raises ChannelRefusedError when its spec or a secret cannot be used."""
    spec, ref = channel.spec, ObjectRef.of(channel)
    match find_road(spec):
        case "humanlayer":
            from kubechain_human_bridge.channels.humanlayer import HumanLayerChannel

            return HumanLayerChannel(spec, secrets, session, settings.humanlayer_url)
        case "smtp":
            from kubechain_human_bridge.channels.smtp import SMTPChannel

            return SMTPChannel(spec, secrets)
        case "slack":
            from kubechain_human_bridge.channels.slack import SlackChannel

            return SlackChannel(spec, secrets, session, ref, tokens)
        case "inbox":
            from kubechain_human_bridge.channels.inbox import InboxChannel

            return InboxChannel()
        case "webhook":
            from kubechain_human_bridge.channels.webhook import WebhookChannel

            callback_url = build_callback_url(find_base_url(settings), ref)
            return WebhookChannel(spec, secrets, session, ref, callback_url, tokens)
