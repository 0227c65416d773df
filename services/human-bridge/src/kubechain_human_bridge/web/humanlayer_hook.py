"""HumanLayer's webhook to us: somebody has answered, so the answer is fetched now and not with the next check.

Nothing in it is believed but that it is worth a look: the answer is read from the API, with the channel's own key. It
is signed by Standard Webhooks, with the secret of ``humanLayer.webhookSecretFrom``; HumanLayer's deliveries carry the
headers under the names of Svix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import orjson
from aiohttp import web

from kubechain_common.api.secret_values import SecretProblem
from kubechain_common.api.v1alpha1 import ContactChannel, TaskRunToolCall
from kubechain_common.kube.errors import KubeError
from kubechain_common.messages import ObjectRef
from kubechain_common.runtime.clock import epoch
from kubechain_common.telemetry.logging import bound, get_logger
from kubechain_human_bridge.answers.lookup import AnswerLookup
from kubechain_human_bridge.channels.errors import ChannelError
from kubechain_human_bridge.channels.standard_webhooks import (
    HEADER_ID,
    HEADER_SIGNATURE,
    HEADER_TIMESTAMP,
    SignatureError,
    SigningKeyError,
    read_key,
    verify,
)
from kubechain_human_bridge.contactchannels.access import ChannelAccess
from kubechain_human_bridge.contactchannels.call_channel import ChannelFinder, ObjectReader, kind_of
from kubechain_human_bridge.web.bodies import receive

log = get_logger(__name__)

Refuse = Callable[[ContactChannel, str, str], None]
"""Records that a delivery to the channel was refused: one word for the count, and a sentence that says why."""

_MAX_ID = 64


class ExternalCalls(Protocol):
    """See ``waiting_calls``."""

    def find_external(self, namespace: str, external_call_id: str) -> TaskRunToolCall | None: ...


class HumanLayerHook:
    """Takes the deliveries for every channel."""

    def __init__(
        self, kube: ObjectReader, waiting: ExternalCalls, access: ChannelAccess, lookup: AnswerLookup, refuse: Refuse
    ) -> None:
        self._kube = kube
        self._waiting = waiting
        self._access = access
        self._lookup = lookup
        self._refuse = refuse

    def build_routes(self) -> list[web.RouteDef]:
        return [web.post("/humanlayer/{namespace}/{channel}", self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        """One delivery."""
        channel = self._access.find_named(request.match_info["namespace"], request.match_info["channel"])
        if channel is None or channel.spec.human_layer is None:
            return web.Response(status=404, text="There is no such webhook.\n")
        body = await receive(request)
        with bound(namespace=channel.namespace, channel=channel.name):
            try:
                await self._verify(channel, request.headers, body)
                return await self._look(channel, find_call_id(body))
            except SignatureError as error:
                self._refuse(channel, "signature", str(error))
                return web.Response(status=401, text=f"Refused: {error}.\n")
            except (ChannelError, KubeError) as error:
                log.warning("cannot fetch the answer that a webhook tells of", error=str(error))
                return web.Response(status=503, text="The answer can not be fetched now, and will be looked for.\n")

    async def _verify(self, channel: ContactChannel, headers: Mapping[str, str], body: bytes) -> None:
        """Raises SignatureError, and KubeError when nobody can tell the secret."""
        secrets = await self._access.read_secrets(channel)
        secret = None if isinstance(secrets, SecretProblem) else secrets.values.get("webhookSecretFrom")
        if not secret:
            raise SignatureError("the channel has no humanLayer.webhookSecretFrom, or its Secret is missing")
        try:
            key = read_key(secret)
        except SigningKeyError as error:
            raise SignatureError(f"the secret of humanLayer.webhookSecretFrom can not be used: {error}") from None
        verify(key, read_signature_headers(headers), body, epoch())

    async def _look(self, channel: ContactChannel, call_id: str | None) -> web.Response:
        call = self._waiting.find_external(channel.namespace, call_id) if call_id else None
        if call is None:
            return web.Response(text="Nobody waits for this answer.\n")
        if await ChannelFinder(self._kube).find_name(call) != channel.name:
            self._refuse(channel, "channel", "it tells of a call that is asked through another channel")
            return web.Response(status=403, text="Refused: the call is asked through another channel.\n")
        external_id = call.status.external_call_id
        verdict = await self._lookup.look(ObjectRef.of(call), channel, kind_of(call), external_id)
        return web.Response(text=f"{verdict.sentence if verdict is not None else 'There is no answer yet.'}\n")


def read_signature_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of Standard Webhooks, under their own names or under those of Svix. Pure."""
    names = (HEADER_ID, HEADER_TIMESTAMP, HEADER_SIGNATURE)
    return {name: headers.get(name) or headers.get(name.replace("webhook-", "svix-", 1), "") for name in names}


def find_call_id(body: bytes) -> str | None:
    """The id in a delivery: of the request itself, or of the ``event`` that carries it. Pure."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    event = parsed.get("event") if isinstance(parsed, dict) else None
    for holder in (event, parsed):
        call_id = holder.get("call_id") if isinstance(holder, dict) else None
        if isinstance(call_id, str) and 0 < len(call_id) <= _MAX_ID:
            return call_id
    return None
