"""``/answer?token=...``: one answer, given by whoever was sent the link.

GET shows the request and never decides, since mail scanners open every link; POST decides. The token is the whole
right: there is no session and no cookie, so there is nothing for another site to abuse.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from urllib.parse import parse_qsl

from aiohttp import web
from pydantic import ValidationError

from kubechain_common.api.tool_arguments import InvalidArgumentsError
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, HumanResponse
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import KubeError
from kubechain_common.runtime.clock import now
from kubechain_human_bridge.addresses import ANSWER_PATH
from kubechain_human_bridge.answers.answers import Outcome, check
from kubechain_human_bridge.answers.edited_arguments import read_edited
from kubechain_human_bridge.audit import Audit, Refusal
from kubechain_human_bridge.links.signed_links import ExpiredLinkError, Grant, LinkError, SignedLinks
from kubechain_human_bridge.web.answer_page import HEADERS, build_message_page, build_request_page
from kubechain_human_bridge.web.bodies import receive
from kubechain_human_bridge.web.request_view import RequestView, read_request
from kubechain_human_bridge.web.roads import AuditedAnswers, log_trouble, status_of

_ROAD = "link"
_MAX_FIELDS = 10


_Handler = Callable[[web.Request, Grant], Awaitable[web.Response]]


class FormError(ValueError):
    """What is wrong with a form, for the person who filled it in."""


class LinkPages:
    """Takes answers by links."""

    def __init__(self, kube: KubeClient, links: SignedLinks, answers: AuditedAnswers, audit: Audit) -> None:
        self._kube = kube
        self._links = links
        self._answers = answers
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        return [web.get(ANSWER_PATH, self.handle_show), web.post(ANSWER_PATH, self.handle_answer)]

    async def handle_show(self, request: web.Request) -> web.Response:
        """The request and its forms."""
        return await self._with_grant(request, self._show)

    async def handle_answer(self, request: web.Request) -> web.Response:
        """Gives the answer of the form."""
        return await self._with_grant(request, self._answer)

    async def _with_grant(self, request: web.Request, handle: _Handler) -> web.Response:
        try:
            return await handle(request, self._links.read(request.query.get("token", "")))
        except ExpiredLinkError as error:
            refusal = Refusal(_ROAD, error.reason, "the link has expired", error.grant.by)
            self._audit.refused_call(error.grant.call, refusal)
            return _message(403, "This link has expired", str(error))
        except LinkError as error:
            refusal = Refusal(_ROAD, error.reason, f"the link is {error.reason}")
            await self._audit.refused_claim(error.claimed, refusal)
            return _message(403, "This link is not valid", str(error))
        except KubeError as error:
            trouble = log_trouble(error, _ROAD)
            return _message(trouble.status, "Not now" if trouble.passes else "This does not work", trouble.sentence)

    async def _show(self, request: web.Request, grant: Grant) -> web.Response:
        view = await read_request(self._kube, grant.call)
        return await self._show_request(view, grant, 200)

    async def _answer(self, request: web.Request, grant: Grant) -> web.Response:
        view = await read_request(self._kube, grant.call)
        try:
            body = await receive(request)
            answer = read_answer(body, grant, view.call.spec.arguments if view else "", now())
        except FormError as error:
            return await self._show_request(view, grant, 422, str(error))
        verdict = await self._answers.give(grant.call, answer, _ROAD)
        if verdict.outcome is Outcome.INVALID:
            return await self._show_request(view, grant, 422, verdict.sentence)
        title = "Thank you" if verdict.accepted else "Nothing was changed"
        return _message(status_of(verdict), title, verdict.sentence)

    async def _show_request(
        self, view: RequestView | None, grant: Grant, status: int, problem: str = ""
    ) -> web.Response:
        if view is None:
            return _message(404, "Nothing to answer", "This request does not exist any more.")
        refusal = check(view.call, grant.call, "decision" if grant.kind == "Approval" else "response")
        if refusal is not None:
            return _message(status_of(refusal), "Nothing to answer", refusal.sentence)
        return _page(status, build_request_page(view, grant.by, problem))


def read_answer(body: bytes, grant: Grant, arguments: str, at: datetime) -> Decision | HumanResponse:
    """The answer in a form's body, given ``at``; ``arguments`` are those of the call. Pure. Raises FormError."""
    fields = parse_form(body)
    action = fields.get("action", "")
    signature = {"by": grant.by, "via": _ROAD, "at": at}
    try:
        match grant.kind, action:
            case "Approval", "approve":
                edited = read_change(fields.get("arguments", ""), arguments)
                return Decision.model_validate({"approved": True, "arguments": edited, **signature})
            case "Approval", "reject":
                return Decision.model_validate(
                    {"approved": False, "comment": fields.get("comment") or None, **signature}
                )
            case "Contact", "respond":
                return HumanResponse.model_validate({"message": fields.get("message", "").strip(), **signature})
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        raise FormError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    raise FormError("Choose one of the answers below.")


def read_change(text: str, arguments: str) -> str | None:
    """The arguments in the form, which brings them changed or not; None where they are the call's. Pure."""
    if not text.strip() or _is_same(text, arguments):
        return None
    try:
        return read_edited(text)
    except InvalidArgumentsError as error:
        raise FormError(f"{error} Correct them and approve again.") from None


def _is_same(text: str, arguments: str) -> bool:
    try:
        return json.dumps(json.loads(text)) == json.dumps(json.loads(arguments))
    except (ValueError, RecursionError):
        return False


def parse_form(body: bytes) -> dict[str, str]:
    """The fields of a urlencoded form; nothing where it is none. Pure."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return {}
    return {name: value.replace("\r\n", "\n") for name, value in pairs}


def _message(status: int, title: str, sentence: str) -> web.Response:
    return _page(status, build_message_page(title, sentence))


def _page(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/html", charset="utf-8", headers=HEADERS)
