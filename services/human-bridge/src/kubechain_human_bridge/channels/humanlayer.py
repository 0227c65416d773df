"""The HumanLayer API: it reaches people by mail and in Slack, and is asked for their answers.

A request is created under an id of ours, so a second one of the same id is the same request: where an earlier attempt
may have arrived it is looked up first, and a 409 says that it is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp

from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.messages.human import REASON_HUMANLAYER_FAILED, REASON_HUMANLAYER_SENT
from kubechain_human_bridge.channels.ask_text import one_line
from kubechain_human_bridge.channels.base import Ask, Given, Kind
from kubechain_human_bridge.channels.errors import ChannelError, ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.channels.http_answers import describe_network_error, read_body, read_retry_after
from kubechain_human_bridge.channels.humanlayer_wire import collection_of, encode_request, read_answer

_TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
_RETRYABLE = frozenset({408, 425, 429})
_PREFIX = "/humanlayer/v1"
_MAX_QUOTED = 300


class HumanLayerChannel:
    """``secrets["apiKeyFrom"]`` is the key; the channel may name another address of the API than ``base_url``."""

    sent_reason = REASON_HUMANLAYER_SENT
    failed_reason = REASON_HUMANLAYER_FAILED

    def __init__(
        self, spec: ContactChannelSpec, secrets: Mapping[str, str], session: aiohttp.ClientSession, base_url: str
    ) -> None:
        self._spec = spec
        self._key = secrets.get("apiKeyFrom", "")
        if not self._key or not self._key.isascii():
            raise ChannelRefusedError("the secret of apiKeyFrom is not an API key: no HTTP header can carry it")
        own = spec.human_layer.base_url if spec.human_layer is not None else None
        self._base = (own or base_url).rstrip("/").removesuffix(_PREFIX) + _PREFIX
        self._session = session

    async def validate(self) -> str:
        """Asks for the project that the key belongs to."""
        status, body, _ = await self._request("GET", "project")
        if status == HTTPStatus.UNAUTHORIZED:
            raise ChannelRefusedError("invalid HumanLayer API key")
        if status != HTTPStatus.OK:
            raise self._build_error(status, body)
        return f"HumanLayer {self._spec.type} channel validated successfully"

    async def send(self, ask: Ask) -> str:
        """Creates the request, unless it is there already."""
        if not (ask.again and await self._find(ask.external_call_id, ask.kind) is not None):
            status, body, retry_after = await self._request(
                "POST", collection_of(ask.kind), encode_request(self._spec, ask)
            )
            if status >= HTTPStatus.MULTIPLE_CHOICES and status != HTTPStatus.CONFLICT:
                raise self._build_error(status, body, retry_after)
        return "HumanLayer request sent"

    async def find_answer(self, external_call_id: str, kind: Kind) -> Given | None:
        """What the person said. A request that HumanLayer does not know (any more) has no answer."""
        found = await self._find(external_call_id, kind)
        return read_answer(kind, found, self._receiver) if found is not None else None

    async def aclose(self) -> None:
        """Closes nothing: the session is not the channel's own."""

    @property
    def _receiver(self) -> str:
        if self._spec.email is not None:
            return self._spec.email.address
        return self._spec.slack.channel_or_user_id if self._spec.slack is not None else "somebody"

    async def _find(self, external_call_id: str, kind: Kind) -> object | None:
        status, body, retry_after = await self._request("GET", f"{collection_of(kind)}/{external_call_id}")
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status != HTTPStatus.OK:
            raise self._build_error(status, body, retry_after)
        try:
            return json.loads(body) or {}
        except (ValueError, RecursionError):
            raise ChannelUnavailableError("HumanLayer answered with something that is not JSON") from None

    async def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, float | None]:
        """Status, body, and how long we are asked to wait. Raises ChannelError when there is no answer."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            # The key is for this address alone: a redirect is not followed.
            async with self._session.request(
                method, f"{self._base}/{path}", data=body, headers=headers, allow_redirects=False, timeout=_TIMEOUT
            ) as response:
                return response.status, await read_body(response), read_retry_after(response.headers)
        except (aiohttp.InvalidURL, ValueError):
            raise ChannelRefusedError("the address of the HumanLayer API is not a URL") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ChannelUnavailableError(f"HumanLayer can not be reached: {describe_network_error(error)}") from None

    def _build_error(self, status: int, body: bytes, retry_after: float | None = None) -> ChannelError:
        # The key first: what is cut before could leave a part of it.
        said = one_line(body.decode(errors="replace").replace(self._key, "***"), _MAX_QUOTED)
        message = f"HumanLayer request failed with status code {status}: {said or _phrase(status)}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _RETRYABLE:
            return ChannelUnavailableError(message, retry_after=retry_after)
        return ChannelRefusedError(message)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no reason given"
