"""Handles one LLMRequest: call the model, publish what came of it, and only then let the request go.

    the model answers            -> result Message, once, on the turn's own subject
    it never will (4xx, empty)   -> result Error with the provider's sentence
    it may later (429, 5xx, ..)  -> notice Retrying, and delivered again after a back-off; gives up in the end
    the LLM is not usable        -> notice Retrying, and waits here until the LLM or its Secret changes
    it may not be called now     -> notice Retrying, and waits here until it may: see ``admission``
    another may do better        -> one of its fallbacks is asked: see ``fallback``
    a text of the conversation   -> result Error if it is gone for good
    the API server is away       -> notice Retrying, and waits here until the conversation and the Secret can be read

The delivery count is the attempt count, so it survives restarts; waiting here, not by redelivery, keeps it honest. A
notice has a subject of its own for every attempt, because the result's subject takes one message only. Results carry no
Nats-Msg-Id: one that replaces a lost one must not be taken for its duplicate.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.kube.backoff import Backoff
from kubechain_common.kube.errors import KubeError
from kubechain_common.kube.window_reader import ContentLostError
from kubechain_common.messages import Envelope, LLMCallError, LLMRequest, LLMResult, ObjectRef
from kubechain_common.messages.llm import REASON_CONTENT_LOST
from kubechain_common.messaging.delivery import Delivery
from kubechain_common.messaging.errors import MessagingError, RetryLater
from kubechain_common.runtime.clock import epoch, now
from kubechain_common.runtime.waiting import wait_any
from kubechain_common.telemetry.logging import bound, get_logger
from kubechain_llm_gateway.admission.admission import Admission, Leave, Prepared
from kubechain_llm_gateway.admission.fallback import (
    ProviderBlockedError,
    choose_error,
    hide_foreign_data,
    is_long,
    may_do_better,
)
from kubechain_llm_gateway.admission.fallback_calls import FallbackCalls
from kubechain_llm_gateway.admission.retry_policy import RetryPolicy
from kubechain_llm_gateway.admission.token_guess import count_characters
from kubechain_llm_gateway.calls.instrumentation import observe_call
from kubechain_llm_gateway.calls.results import (
    build_answer,
    build_failure,
    build_notice,
    notice_subject,
    result_subject,
)
from kubechain_llm_gateway.llms.access import LLMAccess, LLMNotUsableError
from kubechain_llm_gateway.providers.base import Completion, OnDelta, Provider
from kubechain_llm_gateway.providers.errors import ProviderError

log = get_logger(__name__)

MAX_SHOWN_IMAGES = 20
"""Images of a conversation that are shown, the newest ones; providers take no more of full size in one request."""

_RETRIES = RetryPolicy()
_REMEMBERED = 4096
_LLM_GONE_DELAY = 5.0
_API_SERVER_DELAY = 2.0
_LONGEST_DELAY = 10.0
_FRESH = timedelta(seconds=5)

_Delivery = Delivery[LLMRequest]


class ResultBus(Protocol):
    """The part of the Bus that results need."""

    async def publish(self, subject: str, message: Envelope, *, msg_id: None, trace: SpanContext | None) -> object: ...

    async def publish_until_stored(self, subject: str, message: Envelope, *, trace: SpanContext | None) -> object: ...


class Wanted(Protocol):
    """See ``task_probe``."""

    async def is_wanted(self, request: LLMRequest) -> bool: ...


class Conversations(Protocol):
    """See ``kube.window_reader``."""

    def learn(self, task: ObjectRef, texts: Mapping[str, str]) -> None: ...

    async def read(self, task: ObjectRef, window: Sequence[Message]) -> list[Message]: ...

    async def show_images(self, task: ObjectRef, messages: Sequence[Message], limit: int) -> list[Message]: ...


class Drafts(Protocol):
    """See ``deltas``."""

    def open(self, request: LLMRequest, attempt: int) -> AbstractContextManager[OnDelta | None]: ...


class _NoDrafts:
    def open(self, request: LLMRequest, attempt: int) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class _UnexpectedError(ProviderError):
    """A defect of our own; tried again, and visible in the Task in the end."""

    retryable = True


class RequestWorker:
    """Handles requests. It remembers only what it answered lately, which saves a second call when an acknowledgement
    got lost.
    """

    def __init__(
        self,
        bus: ResultBus,
        access: LLMAccess,
        admission: Admission,
        fallbacks: FallbackCalls,
        probe: Wanted,
        conversations: Conversations,
        stopping: asyncio.Event,
        drafts: Drafts | None = None,
    ) -> None:
        self._bus = bus
        self._access = access
        self._admission = admission
        self._fallbacks = fallbacks
        self._probe = probe
        self._conversations = conversations
        self._stopping = stopping
        self._drafts = drafts or _NoDrafts()
        self._answered: OrderedDict[tuple[str, datetime], None] = OrderedDict()

    async def handle_request(self, delivery: _Delivery) -> None:
        """Returns when the request is dealt with.

        Raises:
            RetryLater: it is to be delivered again.
            MessagingError: the bus failed; also to be delivered again.
        """
        request = delivery.message
        with bound(namespace=request.task.namespace, task=request.task.name, turn=request.turn, llm=request.llm.name):
            if not await self._is_settled(delivery):
                await self._answer(delivery)

    async def _is_settled(self, delivery: _Delivery) -> bool:
        if _identity(delivery) in self._answered:
            return True
        if _is_fresh(delivery, now()) or await self._is_wanted(delivery.message):
            return False
        log.info("llm request is settled already", attempt=delivery.attempt)
        return True

    async def _is_wanted(self, request: LLMRequest) -> bool:
        """Whether the answer is still wanted. Waits while the API server is away: the Task can not move on either.
        Raises RetryLater when this process is to end.
        """
        while True:
            try:
                return await self._probe.is_wanted(request)
            except KubeError as error:
                log.warning("cannot ask for the task, waiting", error=str(error))
                delay = error.retry_after or _API_SERVER_DELAY
            try:
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
                raise RetryLater(0)
            except TimeoutError:
                continue

    async def _answer(self, delivery: _Delivery) -> None:
        llm, _ = await self._open(delivery)
        try:
            completion, other, reason = await self._ask(delivery, llm)
        except (RetryLater, MessagingError):
            raise
        except ContentLostError as error:
            log.warning("a part of the conversation is lost", error=str(error))
            problem = LLMCallError(message=str(error), reason=REASON_CONTENT_LOST)
            await self._publish_result(delivery, build_failure(delivery, problem))
        except ProviderError as error:
            await self._handle_failure(delivery, llm, error)
        except Exception as error:
            log.exception("llm call failed unexpectedly", attempt=delivery.attempt)
            await self._handle_failure(
                delivery, llm, _UnexpectedError(f"llm-gateway failed unexpectedly ({type(error).__name__})")
            )
        else:
            await self._publish_result(delivery, build_answer(delivery, completion, other, reason))

    async def _ask(self, delivery: _Delivery, llm: LLM) -> tuple[Completion, LLM | None, str]:
        """The answer, the fallback that gave it, if any, and why that was asked.

        Raises ProviderError, RetryLater and ContentLostError.
        """
        first: ProviderError | None = None
        errors: list[ProviderError] = []
        try:
            return await self._ask_one(delivery, llm, llm, self._fallbacks.leave_of(llm)), None, ""
        except ProviderBlockedError as blocked:
            reason = str(blocked)
        except ProviderError as error:
            last = not self._may_retry(delivery, llm)
            if not may_do_better(error, last_attempt=last, blocked=self._admission.find_block(llm) is not None):
                raise
            first, reason = error, error.message
        for other in self._fallbacks.find(llm):
            log.info("llm call goes to a fallback", fallback=other.name, reason=reason)
            try:
                async with self._fallbacks.slots_of(other):
                    completion = await self._ask_one(delivery, llm, other, lambda block: is_long(block, epoch()))
            except (ProviderBlockedError, LLMNotUsableError, KubeError) as error:
                log.info("a fallback cannot be asked", fallback=other.name, error=str(error))
            except ProviderError as error:
                log.warning("a fallback failed", fallback=other.name, error=error.message)
                errors.append(error)
            else:
                return completion, other, reason
        error_of_all = choose_error(first, errors)
        if error_of_all is not None:
            raise error_of_all
        return await self._ask_one(delivery, llm, llm, None), None, ""  # it is waited for after all

    async def _ask_one(self, delivery: _Delivery, own: LLM, asked: LLM, leave: Leave | None) -> Completion:
        """Asks one LLM. Raises ProviderError, ProviderBlockedError, RetryLater, ContentLostError, and what
        ``open_provider`` does.
        """
        conversation = await self._read_conversation(delivery, asked)
        messages = hide_foreign_data(conversation, own, asked)
        return await self._admission.run(
            asked,
            lambda: count_characters(messages, delivery.message.tools),
            lambda reason: self._publish_waiting(delivery, asked, reason),
            lambda waited: self._prepare(delivery, asked, messages, waited),
            leave,
        )

    async def _prepare(
        self, delivery: _Delivery, asked: LLM, messages: Sequence[Message], waited: float
    ) -> Prepared[Completion]:
        """The call, of the LLM as it is now.

        Raises what ``_ask_one`` does, and RetryLater when the answer is not wanted any more.
        """
        request = delivery.message
        if waited > _FRESH.total_seconds() and not await self._is_wanted(request):
            raise RetryLater(0)
        if asked.uid == request.llm.uid:
            llm, provider = await self._open(delivery)  # the key may have changed meanwhile
        else:
            llm, provider = await self._open_fallback(asked)
        return Prepared(llm, lambda: self._call(delivery, llm, provider, messages))

    async def _open_fallback(self, other: LLM) -> tuple[LLM, Provider]:
        """Raises LLMNotUsableError, and KubeError when its Secret cannot be read."""
        latest = self._access.find(ObjectRef.of(other))
        if latest is None:
            raise LLMNotUsableError(f'LLM "{other.name}" not found: it was deleted')
        return latest, await self._access.open_provider(latest)

    async def _call(self, delivery: _Delivery, llm: LLM, provider: Provider, messages: Sequence[Message]) -> Completion:
        request, parameters = delivery.message, llm.spec.parameters or LLMParameters()
        with self._drafts.open(request, delivery.attempt) as draft:
            return await observe_call(
                llm,
                delivery.trace,
                lambda hear: provider.complete(messages, request.tools, parameters, hear, request.response_format),
                messages=messages,
                on_delta=draft,
            )

    async def _read_conversation(self, delivery: _Delivery, llm: LLM) -> list[Message]:
        """The messages in full; waits while the API server does not answer. Raises ContentLostError."""
        request = delivery.message
        self._conversations.learn(request.task, request.texts)
        backoff, told = Backoff(_API_SERVER_DELAY, _LONGEST_DELAY), False
        while True:
            try:
                messages = await self._conversations.read(request.task, request.messages)
                if llm.spec.accepts_images:
                    return await self._conversations.show_images(request.task, messages, MAX_SHOWN_IMAGES)
                return messages
            except ContentLostError:
                raise
            except KubeError as error:
                problem, delay = f"cannot read the conversation: {error}", _delay(backoff, error)
            log.warning("api server does not answer, waiting", error=problem)
            if not told:
                await self._publish_notice(delivery, LLMCallError(message=problem, retryable=True), delay)
                told = True
            await self._wait(delivery, delay)

    async def _open(self, delivery: _Delivery) -> tuple[LLM, Provider]:
        """The LLM and its client; waits for as long as the LLM cannot be used, or its Secret cannot be read."""
        backoff, told = Backoff(_API_SERVER_DELAY, _LONGEST_DELAY), ""
        while True:
            changed = self._access.changed  # taken before the look, so that no change falls in between
            delay = None
            try:
                return await self._try_open(delivery)
            except LLMNotUsableError as error:
                problem = cause = str(error)
            except KubeError as error:
                problem, cause = f"cannot read the LLM's Secret: {error}", "api server"
                delay = _delay(backoff, error)
            if cause != told:
                log.warning("llm cannot be used, waiting", error=problem)
                await self._publish_notice(delivery, LLMCallError(message=problem, retryable=True), delay)
                told = cause
            await self._wait(delivery, delay, changed)

    async def _wait(self, delivery: _Delivery, delay: float | None, *events: asyncio.Event) -> None:
        """Waits until it is worth another look. Raises RetryLater if there is no use in one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await wait_any(*events, self._stopping)
        if self._stopping.is_set() or not await self._is_wanted(delivery.message):
            raise RetryLater(0)  # the next delivery finds out what became of the Task

    async def _try_open(self, delivery: _Delivery) -> tuple[LLM, Provider]:
        ref = delivery.message.llm
        llm = self._access.find(ref)
        if llm is not None:
            return llm, await self._access.open_provider(llm)
        # It is gone, or our view of it is older than the request. Nothing waits here for it: the consumer goes with its
        # LLM.
        problem = f'LLM "{ref.name}" not found: it was deleted'
        await self._publish_notice(delivery, LLMCallError(message=problem, retryable=True), _LLM_GONE_DELAY)
        raise RetryLater(_LLM_GONE_DELAY)

    async def _handle_failure(self, delivery: _Delivery, llm: LLM, error: ProviderError) -> None:
        attempt = delivery.attempt
        problem = LLMCallError(message=error.message, status_code=error.status_code, retryable=error.retryable)
        log.warning("llm call failed", attempt=attempt, status_code=error.status_code, error=error.message)
        if error.retryable and self._may_retry(delivery, llm):
            delay = _RETRIES.delay(attempt, error.retry_after)
            await self._publish_notice(delivery, problem, delay)
            raise RetryLater(delay)
        if error.retryable:
            problem.message = f"gave up after {attempt} attempts: {error.message}"
        await self._publish_result(delivery, build_failure(delivery, problem))

    def _may_retry(self, delivery: _Delivery, llm: LLM) -> bool:
        return _RETRIES.may_retry(delivery.attempt, llm.spec.mistral.max_retries if llm.spec.mistral else None)

    async def _publish_result(self, delivery: _Delivery, result: LLMResult) -> None:
        await self._bus.publish_until_stored(result_subject(result), result, trace=delivery.trace)
        self._answered[_identity(delivery)] = None
        if len(self._answered) > _REMEMBERED:
            self._answered.popitem(last=False)

    async def _publish_waiting(self, delivery: _Delivery, llm: LLM, reason: str) -> None:
        problem = f'LLM "{llm.name}": {reason}'
        await self._publish_notice(delivery, LLMCallError(message=problem, retryable=True), None)

    async def _publish_notice(self, delivery: _Delivery, problem: LLMCallError, retry_in: float | None) -> None:
        """Best effort: a notice informs, nothing depends on it."""
        notice = build_notice(delivery, problem, retry_in)
        try:
            await self._bus.publish(notice_subject(notice), notice, msg_id=None, trace=delivery.trace)
        except MessagingError as error:
            log.warning("cannot publish a retry notice", error=str(error))


def _delay(backoff: Backoff, error: KubeError) -> float:
    return min(error.retry_after or backoff.next(), _LONGEST_DELAY)


def _is_fresh(delivery: _Delivery, at: datetime) -> bool:
    """Whether the turn is so new that nobody can have answered it, nor lost interest. By both clocks."""
    since = delivery.new_since
    return since is not None and at - min(since, delivery.stored_at) < _FRESH


def _identity(delivery: _Delivery) -> tuple[str, datetime]:
    """Tells a redelivery from a new publish of the same turn, also across a loss of the stream."""
    return delivery.subject, delivery.stored_at
