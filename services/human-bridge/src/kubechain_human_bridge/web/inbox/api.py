"""The JSON API of the page: see requests, answer them, see what was answered.

Each answer is checked for that user at that moment. A refusal changes nothing and is told in an Event of the call.
"""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kubechain_common.api.tool_arguments import InvalidArgumentsError, read_question
from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import MAX_CONTENT
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, HumanResponse
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import NotFoundError
from kubechain_common.messages import ObjectRef
from kubechain_common.runtime.clock import now
from kubechain_human_bridge.answers.answers import Answers, Verdict
from kubechain_human_bridge.answers.edited_arguments import read_edited
from kubechain_human_bridge.audit import Refusal as RefusedAnswer
from kubechain_human_bridge.web.inbox.board import Board
from kubechain_human_bridge.web.inbox.conversation import Conversations, missing
from kubechain_human_bridge.web.inbox.entries import (
    Json,
    describe_answer,
    describe_history,
    is_question,
)
from kubechain_human_bridge.web.inbox.history import History
from kubechain_human_bridge.web.inbox.responses import Refusal, json_response, read_body
from kubechain_human_bridge.web.inbox.rights import Access, Rights
from kubechain_human_bridge.web.inbox.sessions import Session
from kubechain_human_bridge.web.inbox.sign_in import SignIn
from kubechain_human_bridge.web.inbox.stream import Streams
from kubechain_human_bridge.web.inbox.surroundings import Surroundings
from kubechain_human_bridge.web.roads import status_of

LISTED = 200
"""Requests in one list; the page says how many more there are."""

_MAX_NAME = 253


class AuditLog(Protocol):
    """Tells of answers that were not taken."""

    def refused_call(self, call: ObjectRef, refusal: RefusedAnswer) -> None: ...

    def refused_unknown(self, refusal: RefusedAnswer) -> None: ...


class _Answer(BaseModel):
    """``uid`` is that of the call that the person saw; absent: whichever has the name now."""

    model_config = ConfigDict(extra="forbid")

    uid: Annotated[str, Field(max_length=253)] | None = None


class _Decision(_Answer):
    approved: bool
    comment: Annotated[str, Field(max_length=65_536)] | None = None
    arguments: str | dict[str, Any] | None = None


class _Response(_Answer):
    message: Annotated[str, Field(min_length=1, max_length=MAX_CONTENT)]


class InboxAPI:
    """Handlers; each raises Refusal or KubeError."""

    def __init__(
        self,
        kube: KubeClient,
        *,
        sign_in: SignIn,
        rights: Rights,
        board: Board,
        answers: Answers,
        audit: AuditLog,
    ) -> None:
        self._kube = kube
        self._sign_in = sign_in
        self._rights = rights
        self._board = board
        self._answers = answers
        self._audit = audit
        self._surroundings = Surroundings(kube)
        self._conversations = Conversations(kube)
        self._history = History(kube)
        self._streams = Streams(board, rights, self._surroundings)

    # --- seeing ---

    async def handle_list(self, request: web.Request) -> web.Response:
        session = await self._sign_in.identify(request)
        waiting = self._board.waiting()
        visible = await self._rights.visible(session.user, (namespace for namespace, _ in waiting))
        shown = [key for key in waiting if key[0] in visible]
        found = (self._board.find(*key) for key in shown[:LISTED])
        requests = await self._surroundings.describe_all([call for call in found if call is not None])
        return json_response({"requests": requests, "total": len(shown)})

    async def handle_history(self, request: web.Request) -> web.Response:
        session = await self._sign_in.identify(request)
        answered = self._board.answered()
        visible = await self._rights.visible(session.user, (call.namespace for call in answered))
        shown = [call for call in answered if call.namespace in visible]
        return json_response({"decisions": await self._history.describe_all(shown)})

    async def handle_events(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.serve(request, await self._sign_in.identify(request))

    async def handle_show(self, request: web.Request) -> web.Response:
        session = await self._sign_in.identify(request)
        namespace, name = _read_path(request)
        user = session.user
        if not await self._rights.may(user, Access("get", namespace, name)):
            raise Refusal(403, f'You may not see tool calls in namespace "{namespace}".')
        call = await self._read(namespace, name)
        may_decide = await self._rights.may(user, Access("decide", namespace, name))
        task = call.spec.task_run_ref.name
        if await self._rights.may(user, Access("get", namespace, task, "tasks")):
            conversation = await self._conversations.read(namespace, task)
        else:
            conversation = missing(f'You may not read Task "{task}", so its conversation is not shown.')
        shown = await self._surroundings.describe(call) | _describe_whole(call)
        return json_response(shown | {"mayDecide": may_decide, "conversation": conversation})

    # --- answering ---

    async def handle_decision(self, request: web.Request) -> web.Response:
        session = await self._authorise(request)
        given = await read_body(request, _Decision)
        ref = await self._name_call(request, given.uid)
        arguments = None if given.arguments is None else check_arguments(given.arguments)
        decision = _build(
            Decision,
            approved=given.approved,
            comment=given.comment or None,
            arguments=arguments if given.approved else None,
            by=session.user.name[:_MAX_NAME],
            via="page",
            at=now(),
        )
        return _tell(await self._answers.decide(ref, decision))

    async def handle_response(self, request: web.Request) -> web.Response:
        session = await self._authorise(request)
        given = await read_body(request, _Response)
        ref = await self._name_call(request, given.uid)
        response = _build(HumanResponse, message=given.message, by=session.user.name[:_MAX_NAME], via="page", at=now())
        return _tell(await self._answers.respond(ref, response))

    async def _authorise(self, request: web.Request) -> Session:
        """Who answers, if they may."""
        namespace, name = _read_path(request)
        try:
            session = await self._sign_in.identify(request)
        except Refusal as refusal:
            self._refuse(namespace, name, RefusedAnswer("page", "NotSignedIn", refusal.sentence))
            raise
        if not await self._rights.may_now(session.user, Access("decide", namespace, name)):
            why = f'You need the right to "decide" taskruntoolcalls in namespace "{namespace}".'
            missing_right = f'the right to "decide" taskruntoolcalls in namespace "{namespace}" is missing'
            self._refuse(namespace, name, RefusedAnswer("page", "Forbidden", missing_right, session.user.name))
            raise Refusal(403, why)
        return session

    def _refuse(self, namespace: str, name: str, refusal: RefusedAnswer) -> None:
        # Only a call that is known here: whoever is refused must not make us read.
        call = self._board.find(namespace, name)
        if call is not None:
            self._audit.refused_call(ObjectRef.of(call), refusal)
        else:
            self._audit.refused_unknown(refusal)

    async def _name_call(self, request: web.Request, uid: str | None) -> ObjectRef:
        namespace, name = _read_path(request)
        if uid is None:
            return ObjectRef.of(await self._read(namespace, name))
        try:
            return ObjectRef(namespace=namespace, name=name, uid=uid)
        except ValidationError:
            raise Refusal(404, "This request does not exist any more.") from None

    async def _read(self, namespace: str, name: str) -> TaskRunToolCall:
        try:
            return await self._kube.get(TaskRunToolCall, namespace, name)
        except NotFoundError:
            raise Refusal(404, "This request does not exist any more.") from None


def check_arguments(given: str | dict[str, Any]) -> str:
    """The JSON text of edited arguments. Raises Refusal."""
    try:
        return read_edited(given)
    except InvalidArgumentsError as error:
        raise Refusal(422, str(error)) from None


def _build(model: Any, **fields: Any) -> Any:
    try:
        return model(**fields)
    except ValidationError:
        raise Refusal(413, "This is more than one answer can hold.") from None


def _describe_whole(call: TaskRunToolCall) -> Json:
    """Everything that a list leaves out."""
    return {
        "arguments": call.spec.arguments,
        "question": read_question(call.spec.arguments) if is_question(call) else None,
        "waiting": call.awaits_human and not call.spec.cancel,
        "status": call.status.status or call.status.phase.value,
        "statusDetail": call.status.status_detail,
        "answer": describe_answer(call, None),
        "history": describe_history(call),
    }


def _tell(verdict: Verdict) -> web.Response:
    status = status_of(verdict)
    key = "message" if verdict.accepted else "error"
    return json_response({"outcome": verdict.outcome.value, key: verdict.sentence}, status)


def _read_path(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]
