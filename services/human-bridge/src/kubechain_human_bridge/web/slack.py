"""``POST /slack/<namespace>/<channel>/interactions``: the buttons and forms of Slack messages.

Set as the interactivity request URL of the channel's own Slack app, whose signature every request has to carry. Only
those in ``allowedResponderIDs``, where it is set, may answer. Slack waits three seconds: the answer is written first,
and what then changes in the conversation is tried once, within what is left.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import aiohttp
from aiohttp import web

from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, HumanResponse
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import KubeError
from kubechain_common.messages import ObjectRef
from kubechain_common.runtime.clock import epoch, now
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.answers.answers import Outcome, Verdict
from kubechain_human_bridge.audit import Audit, Refusal
from kubechain_human_bridge.channels.call_token import CallToken, CallTokenError, CallTokens
from kubechain_human_bridge.channels.errors import ChannelError
from kubechain_human_bridge.channels.slack_api import SlackAPI
from kubechain_human_bridge.channels.slack_blocks import (
    ACTION_ANSWER,
    ACTION_APPROVE,
    ACTION_REJECT,
    FORM_ANSWER,
    FORM_REJECT,
    Subject,
    build_decided,
    build_form,
    build_form_error,
)
from kubechain_human_bridge.channels.standard_webhooks import SignatureError
from kubechain_human_bridge.web.bodies import receive
from kubechain_human_bridge.web.callbacks import belongs
from kubechain_human_bridge.web.request_view import read_request
from kubechain_human_bridge.web.roads import AuditedAnswers, ChannelLookup, FoundChannel, log_trouble
from kubechain_human_bridge.web.slack_interaction import (
    Click,
    Form,
    InteractionError,
    Place,
    is_slack_url,
    parse_interaction,
    verify_slack,
)

_ROAD = "slack"
_PATIENCE = 2.0
_NOT_YOU = "You may not answer this request: ask somebody who is in the channel's allowedResponderIDs."

_log = get_logger(__name__)


class InteractionRefusedError(Exception):
    """Why an interaction does not count, for the person in Slack."""


class SlackInteractions:
    """Takes answers by Slack. ``session`` talks to Slack."""

    def __init__(
        self,
        kube: KubeClient,
        session: aiohttp.ClientSession,
        channels: ChannelLookup,
        tokens: CallTokens,
        answers: AuditedAnswers,
        audit: Audit,
    ) -> None:
        self._kube = kube
        self._session = session
        self._channels = channels
        self._tokens = tokens
        self._answers = answers
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/slack/{namespace}/{channel}/interactions", self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        """One interaction."""
        try:
            found = await self._channels.find_channel(request.match_info["namespace"], request.match_info["channel"])
        except KubeError as error:
            trouble = log_trouble(error, _ROAD)
            return web.json_response({"message": trouble.sentence}, status=trouble.status)
        if found is None or found.channel.spec.slack is None or not found.secrets.get("signingSecretFrom"):
            self._audit.refused_unknown(Refusal(_ROAD, "no_channel", "there is no such Slack channel"))
            return web.json_response({"message": "there is no Slack channel of this name that is ready"}, status=404)
        body = await receive(request)
        try:
            verify_slack(found.secrets["signingSecretFrom"], request.headers, body, epoch())
        except SignatureError as error:
            self._audit.refused_channel(found.channel, Refusal(_ROAD, "signature", str(error)))
            return web.json_response({"message": str(error)}, status=401)
        try:
            interaction = parse_interaction(body)
        except InteractionError as error:
            return web.json_response({"message": str(error)}, status=400)
        match interaction:
            case Click():
                return await self._handle_click(interaction, found)
            case Form():
                return await self._handle_form(interaction, found)
        return web.Response()

    async def _handle_click(self, click: Click, found: FoundChannel) -> web.Response:
        try:
            token = self._admit(click, found)
            if click.action == ACTION_APPROVE:
                await self._approve(click, found, token.call)
            elif click.action in (ACTION_REJECT, ACTION_ANSWER):
                await self._open_form(click, found, token)
        except InteractionRefusedError as error:
            await self._whisper(click, found, str(error))
        except KubeError as error:
            await self._whisper(click, found, log_trouble(error, _ROAD).sentence)
        return web.Response()

    async def _approve(self, click: Click, found: FoundChannel, call: ObjectRef) -> None:
        verdict = await self._answers.give(call, Decision(approved=True, by=click.who.by, via=_ROAD, at=now()), _ROAD)
        await self._show(found, click.place, call, verdict)
        if not verdict.accepted:
            raise InteractionRefusedError(verdict.sentence)

    async def _handle_form(self, form: Form, found: FoundChannel) -> web.Response:
        try:
            token = self._admit(form, found)
            verdict = await self._answers.give(token.call, build_answer(form, now()), _ROAD)
            await self._show(found, form.place, token.call, verdict)
        except InteractionRefusedError as error:
            return web.json_response(build_form_error(str(error)))
        except KubeError as error:
            return web.json_response(build_form_error(log_trouble(error, _ROAD).sentence))
        return web.Response() if verdict.accepted else web.json_response(build_form_error(verdict.sentence))

    def _admit(self, interaction: Click | Form, found: FoundChannel) -> CallToken:
        """The call that it is about. Raises InteractionRefusedError, after telling of it."""
        who, channel = interaction.who, found.channel
        try:
            token = self._tokens.read(interaction.place.token)
        except CallTokenError as error:
            self._audit.refused_channel(channel, Refusal(_ROAD, "token", str(error), who.by))
            raise InteractionRefusedError("This message is not a request of this channel.") from None
        if not belongs(token, channel):
            why = "the call was asked about through another channel"
            self._audit.refused_channel(channel, Refusal(_ROAD, "other_channel", why, who.by))
            raise InteractionRefusedError("This request was sent through another channel, and is answered there.")
        if not may_answer(channel, who.id):
            self._audit.refused_call(token.call, Refusal(_ROAD, "responder", "not in allowedResponderIDs", who.by))
            raise InteractionRefusedError(_NOT_YOU)
        return token

    async def _open_form(self, click: Click, found: FoundChannel, token: CallToken) -> None:
        view = await read_request(self._kube, token.call)
        if view is None:
            raise InteractionRefusedError("This request does not exist any more.")
        subject = Subject(view.headline, view.facts, view.content)
        form = build_form(token.kind, click.place.to_metadata(), subject)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._api(found).call("views.open", {"trigger_id": click.trigger_id, "view": form})
        except (ChannelError, TimeoutError) as error:
            _log.warning(
                "can not open a form in Slack", namespace=token.call.namespace, call=token.call.name, why=str(error)
            )
            raise InteractionRefusedError("Slack did not open the form. Try again.") from None

    async def _show(self, found: FoundChannel, place: Place, call: ObjectRef, verdict: Verdict) -> None:
        """Puts into the message who decided, in place of its buttons; the answer stands whether this works or not."""
        if verdict.outcome not in (Outcome.ACCEPTED, Outcome.TOO_LATE):
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                view = await read_request(self._kube, call)
                if view is None:
                    return
                subject = Subject(view.headline, view.facts, view.content)
                content = build_decided(subject, build_sentence(verdict, now()))
                message = {"channel": place.conversation, "ts": place.ts, **content}
                await self._api(found).call("chat.update", message)
        except (ChannelError, KubeError, TimeoutError) as error:
            _log.warning("can not update a Slack message", namespace=call.namespace, call=call.name, why=str(error))

    async def _whisper(self, click: Click, found: FoundChannel, sentence: str) -> None:
        """Tell the one who clicked, and nobody else."""
        slack = found.channel.spec.slack
        if not is_slack_url(click.response_url, slack.base_url if slack else None):
            return
        body = {"response_type": "ephemeral", "replace_original": False, "text": sentence}
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        try:
            async with self._session.post(click.response_url, json=body, allow_redirects=False, timeout=timeout):
                pass
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            _log.warning("can not answer in Slack", why=type(error).__name__)

    def _api(self, found: FoundChannel) -> SlackAPI:
        slack = found.channel.spec.slack
        return SlackAPI(self._session, slack.base_url if slack else None, found.secrets.get("botTokenFrom", ""))


def may_answer(channel: ContactChannel, user: str) -> bool:
    """Whether the channel lets this person answer: anybody, where it names nobody. Pure."""
    allowed = channel.spec.slack.allowed_responder_ids if channel.spec.slack else None
    return not allowed or user in allowed


def build_answer(form: Form, at: datetime) -> Decision | HumanResponse:
    """The answer in a form, given ``at``. Pure. Raises InteractionRefusedError."""
    signature: dict[str, Any] = {"by": form.who.by, "via": _ROAD, "at": at}
    if form.callback_id == FORM_REJECT:
        return Decision(approved=False, comment=form.text or None, **signature)
    if form.callback_id == FORM_ANSWER and form.text:
        return HumanResponse(message=form.text, **signature)
    raise InteractionRefusedError("Write an answer first.")


def build_sentence(verdict: Verdict, at: datetime) -> str:
    """What the message says from ``at`` on instead of its buttons. Pure."""
    if verdict.accepted:
        return f"{verdict.sentence} at {at:%Y-%m-%d %H:%M:%S} UTC."
    return verdict.sentence.removesuffix(" Your answer was not needed any more.")
