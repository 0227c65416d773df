"""Slack's Web API, as far as we need it.

Slack answers 200 with ``ok: false`` and a word for what went wrong; the words are made sentences here. The token is
in the header only.
https://docs.slack.dev/apis/web-api
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from kubechain_human_bridge.channels.errors import ChannelError, ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.channels.http_answers import describe_network_error, read_body, read_retry_after

DEFAULT_URL = "https://slack.com/api"

_TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=5)

# The words that a second try may change; https://docs.slack.dev/reference/methods/chat.postMessage#errors
_PASSING = frozenset(
    {"ratelimited", "rate_limited", "fatal_error", "internal_error", "service_unavailable", "request_timeout"}
)
_BAD_TOKEN = "the bot token of slack.botTokenFrom is not valid (any more): put a new one into its Secret"
_SENTENCES = {
    "invalid_auth": _BAD_TOKEN,
    "not_authed": _BAD_TOKEN,
    "token_revoked": _BAD_TOKEN,
    "token_expired": _BAD_TOKEN,
    "account_inactive": _BAD_TOKEN,
    "channel_not_found": "there is no channel of this id, or the app can not see it: invite the app, or correct"
    " slack.channelOrUserID",
    "not_in_channel": "the app is not in this channel: invite it",
    "is_archived": "the channel is archived",
    "user_not_found": "there is no person of this id: correct slack.channelOrUserID",
    "missing_scope": "the app lacks a right: add the scope to it and install it again",
}


class SlackError(ChannelRefusedError):
    """Slack said no; ``code`` is its word for it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class SlackAPI:
    """Calls methods in the name of one app."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str | None, token: str) -> None:
        self._session = session
        self._base_url = (base_url or DEFAULT_URL).rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of a method that takes JSON. Raises ChannelError, a SlackError where Slack says no."""
        return await self._request("POST", method, json=dict(body))

    async def query(self, method: str, params: Mapping[str, str]) -> dict[str, Any]:
        """The answer of a method that reads. Raises ChannelError, a SlackError where Slack says no."""
        return await self._request("GET", method, params=dict(params))

    async def _request(self, verb: str, method: str, **content: Any) -> dict[str, Any]:
        try:
            async with self._session.request(
                verb,
                f"{self._base_url}/{method}",
                headers=self._headers,
                allow_redirects=False,
                timeout=_TIMEOUT,
                **content,
            ) as response:
                return read_answer(method, response.status, response.headers, await read_body(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ChannelUnavailableError(f"Slack can not be reached: {describe_network_error(error)}") from None
        except ValueError:
            # A token with a line break in it, or a URL that is none: neither is repeated here.
            raise ChannelRefusedError("the token or the URL of Slack can not be part of an HTTP request") from None


def read_answer(method: str, status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The answer where Slack said yes. Pure. Raises ChannelError."""
    if status == 429 or status >= 500:
        raise ChannelUnavailableError(f"Slack answered {status} to {method}", retry_after=read_retry_after(headers))
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if status != 200 or not isinstance(answer, dict):
        raise ChannelRefusedError(f"Slack's answer ({status}) to {method} is not one of its API: check slack.baseUrl")
    if answer.get("ok") is True:
        return answer
    raise _build_error(method, answer, headers)


def _build_error(method: str, answer: Mapping[str, Any], headers: Mapping[str, str]) -> ChannelError:
    code = str(answer.get("error") or "unknown_error")[:100]
    if code in _PASSING:
        return ChannelUnavailableError(f"Slack asks for patience: {code}", retry_after=read_retry_after(headers))
    needed = f" ({str(answer['needed'])[:100]})" if answer.get("needed") else ""
    return SlackError(
        f"Slack refused {method} with {code}{needed}: {_SENTENCES.get(code, 'see its documentation')}", code
    )
