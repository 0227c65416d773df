"""A webhook: a program of the user's own is told, asks people in its own way, and calls back.

Delivered twice, a request has the same ``webhook-id``. The callback carries the request's ``token`` back, signed as the
request was (``web.callbacks``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
from yarl import URL

from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.messages import ObjectRef
from kubechain_human_bridge.channels.base import Ask, OwnChannel
from kubechain_human_bridge.channels.call_token import CallToken, CallTokens
from kubechain_human_bridge.channels.errors import ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.channels.http_answers import describe_network_error, read_retry_after
from kubechain_human_bridge.channels.standard_webhooks import SigningKeyError, read_key, sign

_TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
_RETRYABLE = frozenset({408, 425, 429})


class WebhookChannel(OwnChannel):
    """``secrets["signingSecretFrom"]`` signs; ``callback_url`` is where the answers of ``channel`` are taken."""

    def __init__(
        self,
        spec: ContactChannelSpec,
        secrets: Mapping[str, str],
        session: aiohttp.ClientSession,
        channel: ObjectRef,
        callback_url: str,
        tokens: CallTokens,
    ) -> None:
        if spec.webhook is None:
            raise ChannelRefusedError("the channel has no webhook")
        self._url = spec.webhook.url
        self._secret = secrets.get("signingSecretFrom", "")
        self._session = session
        self._channel = channel
        self._callback_url = callback_url
        self._tokens = tokens

    async def validate(self) -> str:
        """Looks at URL and secret only: a program might take any request for a real one."""
        self._read_url()
        self._read_key()
        return "Webhook channel validated successfully"

    async def send(self, ask: Ask) -> str:
        """Delivers the request; any 2xx is a receipt."""
        url, key = self._read_url(), self._read_key()
        body = orjson.dumps(self.build_body(ask))
        headers = sign(key, ask.external_call_id, int(time.time()), body)
        headers["Content-Type"] = "application/json"
        try:
            # A redirect is not followed: what was meant for one host is nobody else's business.
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False, timeout=_TIMEOUT
            ) as response:
                self._check(response, url.host or "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ChannelUnavailableError(
                f"the webhook at {url.host} can not be reached: {describe_network_error(error)}"
            ) from None
        return f"Request delivered to the webhook at {url.host}"

    async def aclose(self) -> None:
        """Closes nothing: the session is not the channel's own."""

    def build_body(self, ask: Ask) -> dict[str, Any]:
        """What the program is told. Raises ChannelUnavailableError."""
        token = CallToken(ask.call, self._channel.uid, ask.kind)
        body = {
            "type": "approval.requested" if ask.kind == "Approval" else "contact.requested",
            "callId": ask.external_call_id,
            "runId": ask.run_id,
            "namespace": ask.call.namespace,
            "call": ask.call.name,
            "task": ask.task,
            "agent": ask.agent,
            "tool": ask.tool,
            "arguments": ask.arguments,
            "message": ask.message,
            "userMessage": ask.user_message,
            "requestedAt": ask.requested_at.isoformat(),
            "expiresAt": ask.expires_at.isoformat() if ask.expires_at else None,
            "again": ask.again,
            "pageUrl": ask.page_link or None,
            "callbackUrl": self._callback_url,
            "token": self._tokens.write(token),
        }
        return {name: value for name, value in body.items() if value is not None}

    def _read_url(self) -> URL:
        try:
            url = URL(self._url)
        except ValueError:
            url = URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise ChannelRefusedError("webhook.url is not a URL that begins with http:// or https:// and names a host")
        return url

    def _read_key(self) -> bytes:
        try:
            return read_key(self._secret)
        except SigningKeyError as error:
            raise ChannelRefusedError(f"the secret of webhook.signingSecretFrom can not be used: {error}") from None

    def _check(self, response: aiohttp.ClientResponse, host: str) -> None:
        status = response.status
        if status < 300:
            return
        said = f"the webhook at {host} answered {status}"
        if status < 400:
            raise ChannelRefusedError(f"{said}: redirects are not followed, set webhook.url to the final address")
        if status >= 500 or status in _RETRYABLE:
            raise ChannelUnavailableError(said, retry_after=read_retry_after(response.headers))
        raise ChannelRefusedError(said)
