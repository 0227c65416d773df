"""Slack through an app of the user's own: a message with buttons, whose clicks come to ``web.slack``.

A request that may have been sent before is looked for in the conversation, by the metadata of its message, where the
app may read there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.messages import ObjectRef
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.channels.base import Ask, OwnChannel
from kubechain_human_bridge.channels.call_token import CallToken, CallTokens
from kubechain_human_bridge.channels.errors import ChannelRefusedError
from kubechain_human_bridge.channels.slack_api import SlackAPI, SlackError
from kubechain_human_bridge.channels.slack_blocks import EVENT_TYPE, build_request

_log = get_logger(__name__)

_PAGES = 5
_CLOCK_SKEW = 120.0
_PAGE_SIZE = "200"


class SlackChannel(OwnChannel):
    """``secrets``: ``botTokenFrom`` and ``signingSecretFrom``. ``channel`` is the ContactChannel itself."""

    def __init__(
        self,
        spec: ContactChannelSpec,
        secrets: Mapping[str, str],
        session: aiohttp.ClientSession,
        channel: ObjectRef,
        tokens: CallTokens,
    ) -> None:
        if spec.slack is None or not secrets.get("botTokenFrom") or not secrets.get("signingSecretFrom"):
            raise ChannelRefusedError("a Slack channel needs slack.botTokenFrom and slack.signingSecretFrom")
        self._receiver = spec.slack.channel_or_user_id
        self._api = SlackAPI(session, spec.slack.base_url, secrets["botTokenFrom"])
        self._channel = channel
        self._tokens = tokens

    async def validate(self) -> str:
        """Asks Slack who we are."""
        await self._api.call("auth.test", {})
        return "Slack channel validated successfully"

    async def send(self, ask: Ask) -> str:
        """Posts the message, unless it is there already."""
        if ask.again and await self._find_message(ask):
            return f"Slack message to {self._receiver} was sent before"
        token = self._tokens.write(CallToken(ask.call, self._channel.uid, ask.kind))
        await self._api.call("chat.postMessage", {"channel": self._receiver, **build_request(ask, token)})
        return f"Slack message sent to {self._receiver}"

    async def aclose(self) -> None:
        """Closes nothing: the session is not the channel's own."""

    async def _find_message(self, ask: Ask) -> bool:
        """Whether the conversation has the message of this request; False where we may not look."""
        try:
            params = {
                "channel": await self._find_conversation(),
                "oldest": f"{ask.requested_at.timestamp() - _CLOCK_SKEW:.6f}",
                "include_all_metadata": "true",
                "limit": _PAGE_SIZE,
            }
            for _ in range(_PAGES):
                page = await self._api.query("conversations.history", params)
                if any(is_message_of(message, ask.external_call_id) for message in _messages(page)):
                    return True
                cursor = _cursor(page)
                if not cursor:
                    return False
                params["cursor"] = cursor
        except SlackError as error:
            _log.info("can not look for an earlier Slack message", call=ask.call.name, code=error.code)
        return False

    async def _find_conversation(self) -> str:
        """The channel, or the direct messages with the person."""
        if not self._receiver.startswith("U"):
            return self._receiver
        opened = await self._api.call("conversations.open", {"users": self._receiver})
        conversation = opened.get("channel")
        return str(conversation.get("id")) if isinstance(conversation, dict) else self._receiver


def is_message_of(message: Any, external_call_id: str) -> bool:
    """Whether the message, as Slack gives it back, is this request's. Pure."""
    metadata = message.get("metadata") if isinstance(message, dict) else None
    payload = metadata.get("event_payload") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(payload, dict):
        return False
    return metadata.get("event_type") == EVENT_TYPE and payload.get("external_call_id") == external_call_id


def _messages(page: Mapping[str, Any]) -> list[Any]:
    messages = page.get("messages")
    return messages if isinstance(messages, list) else []


def _cursor(page: Mapping[str, Any]) -> str:
    metadata = page.get("response_metadata")
    return str(metadata.get("next_cursor") or "") if isinstance(metadata, dict) else ""
