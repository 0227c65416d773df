"""Takes the requests to people off the stream, and asks each person once.

A request may come again: after a crash, after a lost acknowledgement, after trouble. So it is looked at what became of
it before anybody is asked (its report in the stream, then the call itself), and the claim in the bucket of started
calls tells whether an earlier attempt may have reached the person; the channel then looks for it, or says so. The
bucket may be lost with the broker: of a request that is older than it, an earlier attempt is taken for granted.

The report is published before the request is acknowledged. Trouble is told in a notice, once as long as its words stay
the same, and the next attempt waits for its time or for a change of any channel or Secret, whichever comes first. Only
asking takes one of the channel's turns, so that those who wait keep nobody from being asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import replace
from datetime import datetime
from typing import Protocol, TypeVar

from prometheus_client import Counter

from kubechain_common.api.v1alpha1 import ContactChannel, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.kube.errors import KubeError, NotFoundError
from kubechain_common.messages import Envelope
from kubechain_common.messages.human import REASON_REQUEST_FAILED, AnswerCheck, HumanRequest, HumanResult
from kubechain_common.messages.topology import (
    HUMAN_RESULTS,
    answer_check_subject,
    human_notice_subject,
    human_result_subject,
)
from kubechain_common.messaging.delivery import Delivery, Poison
from kubechain_common.messaging.errors import MessagingError, RetryLater
from kubechain_common.messaging.started_calls import Claim
from kubechain_common.runtime.clock import now
from kubechain_common.runtime.waiting import wait_any
from kubechain_common.telemetry.logging import bound, get_logger
from kubechain_common.telemetry.tracing import span
from kubechain_human_bridge.asking.asks import Links, build_ask
from kubechain_human_bridge.asking.reports import build_dropped, build_notice, build_poison_notice, build_sent
from kubechain_human_bridge.asking.retry_delay import retry_delay
from kubechain_human_bridge.channels.base import Channel, PolledChannel
from kubechain_human_bridge.channels.errors import ChannelError, ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.channels.registry import failed_reason, find_road
from kubechain_human_bridge.contactchannels.access import ChannelAccess
from kubechain_human_bridge.waiting_calls import was_asked

log = get_logger(__name__)

R = TypeVar("R", bound=Resource)

_REMEMBERED = 4096
_API_SERVER_DELAY = 2.0
_LONGEST_API_SERVER_DELAY = 10.0
_REQUESTS = Counter(
    "kubechain_human_requests",
    "Attempts to ask a person, by outcome: sent, unavailable, refused or error.",
    ["road", "outcome"],
)

_Delivery = Delivery[HumanRequest]


class RequestBus(Protocol):
    """The part of the Bus that this needs."""

    async def publish(self, subject: str, message: Envelope, *, msg_id: None, trace: SpanContext | None) -> object: ...

    async def publish_until_stored(self, subject: str, message: Envelope, *, trace: SpanContext | None) -> object: ...

    async def has_message(self, stream: str, subject: str) -> bool: ...


class Claims(Protocol):
    """See ``messaging.started_calls``."""

    async def claim(self, key: str) -> Claim: ...

    async def created_at(self) -> datetime: ...


class ObjectReader(Protocol):
    """Reads from the API server, not from a cache."""

    async def get(self, kind: type[R], namespace: str, name: str) -> R: ...


def ask_key(namespace: str, call: str) -> str:
    """The key of the claim on asking about this call, for ever. It differs from that of the claim on executing the
    call.
    """
    return f"ask/{namespace}/{call}"


class RequestWorker:
    """Asks people. It remembers only the trouble that it told of lately."""

    def __init__(
        self,
        bus: RequestBus,
        claims: Claims,
        kube: ObjectReader,
        access: ChannelAccess,
        links: Links,
        stopping: asyncio.Event,
    ) -> None:
        self._bus = bus
        self._claims = claims
        self._kube = kube
        self._access = access
        self._links = links
        self._stopping = stopping
        self._told: OrderedDict[str, str] = OrderedDict()

    async def handle_request(self, delivery: _Delivery, turns: asyncio.Semaphore) -> None:
        """Deals with the request, and returns when that is done; ``turns`` are those of its channel.

        Raises:
            RetryLater: it is to be delivered again.
            MessagingError: the bus failed; also to be delivered again.
        """
        request = delivery.message
        with bound(namespace=request.call.namespace, call=request.call.name, channel=request.channel.name):
            changed = self._access.changed  # taken before the look, so that no change falls in between
            try:
                report = await self._ask_in_turn(delivery, turns)
            except ChannelError as error:
                await self._handle_trouble(delivery, error, changed)
            except KubeError as error:
                if not error.retryable:
                    await self._handle_trouble(delivery, ChannelRefusedError(str(error)), changed)
                log.warning("cannot ask the api server, trying again", error=str(error))
                raise RetryLater(min(error.retry_after or _API_SERVER_DELAY, _LONGEST_API_SERVER_DELAY)) from error
            else:
                await self._report(delivery, report)

    async def handle_poison(self, poison: Poison) -> None:
        """Has the call show that its request could not be read."""
        notice = build_poison_notice(poison)
        if notice is not None:
            subject = human_notice_subject(notice.call.namespace, notice.call.uid, notice.attempt)
            await self._bus.publish(subject, notice, msg_id=None, trace=poison.trace)

    async def _ask_in_turn(self, delivery: _Delivery, turns: asyncio.Semaphore) -> HumanResult | None:
        waits = turns.locked()
        async with turns:
            if waits and self._stopping.is_set():
                raise RetryLater(0)  # its turn comes sooner elsewhere
            return await self._ask(delivery)

    async def _ask(self, delivery: _Delivery) -> HumanResult | None:
        """The report to publish; None when there is, or was, one already. Raises ChannelError and KubeError."""
        ref = delivery.message.call
        # The order matters: toolcall-controller writes the call before it takes the report off the stream.
        if await self._bus.has_message(HUMAN_RESULTS.name, human_result_subject(ref.namespace, ref.uid)):
            return None
        call = await self._read(TaskRunToolCall, ref.namespace, ref.name)
        if call is None or call.uid != ref.uid or call.metadata.deleting:
            return build_dropped(delivery, "the call was deleted")
        if was_asked(call):
            return None
        if not call.awaits_human or call.spec.cancel:
            return build_dropped(delivery, "the call does not wait for a person any more")
        channel = self._access.find(delivery.message.channel)
        if channel is None:  # its consumer is about to go, or our view is older than the request
            raise ChannelUnavailableError(f'ContactChannel "{delivery.message.channel.name}" not found')
        async with self._access.open(channel) as client:
            return await self._ask_through(client, channel, delivery, call)

    async def _ask_through(
        self, client: Channel, channel: ContactChannel, delivery: _Delivery, call: TaskRunToolCall
    ) -> HumanResult:
        task = await self._read(Task, call.namespace, call.spec.task_run_ref.name)
        ask = build_ask(delivery.message, call, task, channel, self._links)
        claim = await self._claims.claim(ask_key(call.namespace, call.name))
        if claim is Claim.CANCELLED:
            return build_dropped(delivery, "the call was taken back before anybody was asked")
        # Asked after the claim: a bucket that was made anew in between then errs on the safe side.
        lost = claim is Claim.GRANTED and delivery.message.requested_at < await self._claims.created_at()
        ask = replace(ask, again=lost or claim is Claim.TAKEN)
        road = find_road(channel.spec)
        with span(f"ask through {road}", delivery.trace, kind="client"):
            try:
                message = await client.send(ask)
            except ChannelError as error:
                _REQUESTS.labels(road, "unavailable" if error.retryable else "refused").inc()
                raise
            except KubeError:  # the key that signs what comes back is not known yet
                raise
            except Exception as error:
                _REQUESTS.labels(road, "error").inc()
                log.exception("asking failed unexpectedly")
                raise ChannelUnavailableError(f"human-bridge failed unexpectedly ({type(error).__name__})") from error
        _REQUESTS.labels(road, "sent").inc()
        log.info("person asked", road=road, again=ask.again, attempt=delivery.attempt)
        if isinstance(client, PolledChannel):
            await self._publish_check(delivery)
        return build_sent(delivery, client.sent_reason, message, now())

    async def _read(self, kind: type[R], namespace: str, name: str) -> R | None:
        try:
            return await self._kube.get(kind, namespace, name)
        except NotFoundError:
            return None

    async def _publish_check(self, delivery: _Delivery) -> None:
        request = delivery.message
        check = AnswerCheck(
            call=request.call,
            channel=request.channel,
            kind=request.kind,
            external_call_id=request.external_call_id,
            asked_at=now(),
        )
        subject = answer_check_subject(request.channel.uid, request.call.namespace, request.call.uid)
        await self._bus.publish_until_stored(subject, check, trace=delivery.trace)

    async def _report(self, delivery: _Delivery, report: HumanResult | None) -> None:
        if report is not None:
            subject = human_result_subject(report.call.namespace, report.call.uid)
            await self._bus.publish_until_stored(subject, report, trace=delivery.trace)
        self._told.pop(delivery.message.call.uid, None)

    async def _handle_trouble(self, delivery: _Delivery, error: ChannelError, changed: asyncio.Event) -> None:
        """Tells of it, waits, and raises RetryLater."""
        delay = retry_delay(error, delivery.attempt)
        log.warning("cannot ask, trying again", attempt=delivery.attempt, retry_in=round(delay, 1), error=str(error))
        await self._publish_notice(delivery, str(error), delay)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await wait_any(changed, self._stopping)
        raise RetryLater(0) from error

    async def _publish_notice(self, delivery: _Delivery, message: str, delay: float) -> None:
        """Best effort: a notice informs, nothing depends on it."""
        request = delivery.message
        if self._told.get(request.call.uid) == message:
            return
        channel = self._access.find(request.channel)
        reason = failed_reason(channel.spec) if channel is not None else REASON_REQUEST_FAILED
        notice = build_notice(delivery, reason, message, delay)
        subject = human_notice_subject(request.call.namespace, request.call.uid, delivery.attempt)
        try:
            await self._bus.publish(subject, notice, msg_id=None, trace=delivery.trace)
        except MessagingError as error:
            log.warning("cannot publish a retry notice", error=str(error))
            return
        self._told[request.call.uid] = message
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
