"""``POST /callbacks/<namespace>/<channel>``: the answers of the programs behind webhook channels.

Signed as our requests to them are. The ``token`` of the request has to come back in the body, under the signature: it
says which call is answered, and that it was asked about through this very channel. A message that is replayed finds
its call answered, so none is remembered.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import orjson
from aiohttp import web
from pydantic import Field, ValidationError

from kubechain_common.api.tool_arguments import InvalidArgumentsError
from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.conversation import MAX_CONTENT
from kubechain_common.api.v1alpha1.meta import KubeModel
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, HumanResponse
from kubechain_common.kube.errors import KubeError
from kubechain_common.runtime.clock import epoch, now
from kubechain_human_bridge.answers.edited_arguments import read_edited
from kubechain_human_bridge.audit import Audit, Refusal
from kubechain_human_bridge.channels.ask_text import one_line
from kubechain_human_bridge.channels.call_token import CallToken, CallTokenError, CallTokens
from kubechain_human_bridge.channels.standard_webhooks import SignatureError, SigningKeyError, read_key, verify
from kubechain_human_bridge.web.bodies import receive
from kubechain_human_bridge.web.roads import AuditedAnswers, ChannelLookup, FoundChannel, log_trouble, status_of

_ROAD = "webhook"
_MAX_BY = 240


class CallbackError(ValueError):
    """What is wrong with a callback's body, for the program that sent it."""


class Callback(KubeModel):
    """``approved`` (with ``comment``, ``arguments``) or ``response``; ``by`` is who said it.

    ``arguments`` is a JSON object, or the text of one.
    """

    token: Annotated[str, Field(min_length=1, max_length=2000)]
    approved: bool | None = None
    comment: Annotated[str, Field(max_length=65536)] | None = None
    arguments: dict[str, Any] | Annotated[str, Field(max_length=MAX_CONTENT)] | None = None
    response: Annotated[str, Field(min_length=1, max_length=MAX_CONTENT)] | None = None
    by: Annotated[str, Field(max_length=_MAX_BY)] = ""

    def build_answer(self, channel: str, at: datetime) -> Decision | HumanResponse:
        """The answer, given ``at`` in the name of ``webhook:<by>``. Raises CallbackError."""
        by = f"webhook:{one_line(self.by, _MAX_BY) or channel}"[:253]
        if self.approved is not None and self.response is None:
            arguments = self._read_arguments() if self.approved else None
            return Decision(approved=self.approved, comment=self.comment, arguments=arguments, by=by, via=_ROAD, at=at)
        if self.response is not None and self.approved is None:
            return HumanResponse(message=self.response, by=by, via=_ROAD, at=at)
        raise CallbackError("the body needs either approved (true or false) or response (a text)")

    def _read_arguments(self) -> str | None:
        try:
            return None if self.arguments is None else read_edited(self.arguments)
        except InvalidArgumentsError as error:
            raise CallbackError(str(error)) from None


class WebhookCallbacks:
    """Answers by callback."""

    def __init__(self, channels: ChannelLookup, tokens: CallTokens, answers: AuditedAnswers, audit: Audit) -> None:
        self._channels = channels
        self._tokens = tokens
        self._answers = answers
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/callbacks/{namespace}/{channel}", self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        """One callback."""
        try:
            found = await self._channels.find_channel(request.match_info["namespace"], request.match_info["channel"])
            if found is None or found.channel.spec.webhook is None or not found.secrets.get("signingSecretFrom"):
                self._audit.refused_unknown(Refusal(_ROAD, "no_channel", "there is no such webhook channel"))
                return _reply(404, "there is no webhook channel of this name that is ready")
            return await self._take(request, found, found.secrets["signingSecretFrom"])
        except KubeError as error:
            trouble = log_trouble(error, _ROAD)
            return _reply(trouble.status, trouble.sentence, {"Retry-After": "5"} if trouble.passes else None)

    async def _take(self, request: web.Request, found: FoundChannel, secret: str) -> web.Response:
        body = await receive(request)
        try:
            verify(read_key(secret), request.headers, body, epoch())
        except (SignatureError, SigningKeyError) as error:
            return self._refuse(found.channel, 401, "signature", str(error))
        try:
            callback = parse_callback(body)
            answer = callback.build_answer(found.channel.name, now())
        except CallbackError as error:
            return _reply(422, str(error))
        try:
            token = self._tokens.read(callback.token)
        except CallTokenError as error:
            return self._refuse(found.channel, 403, "token", str(error))
        if not belongs(token, found.channel):
            return self._refuse(found.channel, 403, "other_channel", "the call was asked about through another channel")
        verdict = await self._answers.give(token.call, answer, _ROAD)
        return _reply(status_of(verdict), verdict.sentence)

    def _refuse(self, channel: ContactChannel, status: int, reason: str, why: str) -> web.Response:
        self._audit.refused_channel(channel, Refusal(_ROAD, reason, why))
        return _reply(status, why)


def parse_callback(body: bytes) -> Callback:
    """The callback in a body. Pure. Raises CallbackError."""
    try:
        return Callback.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError:
        raise CallbackError("the body is not JSON") from None
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        raise CallbackError(f"{'.'.join(map(str, problem['loc'])) or 'the body'}: {problem['msg']}") from None


def belongs(token: CallToken, channel: ContactChannel) -> bool:
    """Whether the call was asked about through this very channel: no namesake, no other namespace. Pure."""
    return token.channel_uid == channel.uid and token.call.namespace == channel.namespace


def _reply(status: int, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"accepted": status == 200, "message": sentence}, status=status, headers=headers)
