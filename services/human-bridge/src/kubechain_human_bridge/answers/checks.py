"""Asks the outside APIs that have no push for their answers, each request on its own schedule.

The schedule is a message on JetStream: it comes, is looked after, and is given back with a delay, so nothing of it is
lost with a process, and replicas share the work. The delay grows with the age of the request, and with the number of
calls that wait, so that any number of them costs a bounded share of a core and of the other side's patience.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Protocol

from prometheus_client import Counter

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.errors import KubeError, NotFoundError
from kubechain_common.messages import ObjectRef
from kubechain_common.messages.human import AnswerCheck
from kubechain_common.messaging.delivery import Delivery
from kubechain_common.messaging.errors import RetryLater
from kubechain_common.runtime.clock import now
from kubechain_common.telemetry.logging import bound, get_logger
from kubechain_human_bridge.answers.answers import Outcome
from kubechain_human_bridge.answers.lookup import AnswerLookup
from kubechain_human_bridge.channels.errors import ChannelError
from kubechain_human_bridge.contactchannels.access import ChannelAccess

log = get_logger(__name__)

SHORTEST = 5.0
LONGEST = 120.0
LOOKS_PER_SECOND = 10.0
"""Looks a second over all requests, as long as that does not make anybody wait longer than ``LONGEST``."""

_UNUSABLE = 30.0
_CHECKS = Counter(
    "kubechain_answer_checks",
    "Looks for an answer on the other side, by outcome: answered, pending, or settled elsewhere.",
    ["outcome"],
)


class Waiting(Protocol):
    """See ``waiting_calls``."""

    def find(self, ref: ObjectRef) -> TaskRunToolCall | None: ...

    def count(self) -> int: ...


class CallReader(Protocol):
    """Reads calls from the API server, not from a cache."""

    async def get(self, kind: type[TaskRunToolCall], namespace: str, name: str) -> TaskRunToolCall: ...


class AnswerChecker:
    """Handles the checks of every channel."""

    def __init__(self, kube: CallReader, waiting: Waiting, access: ChannelAccess, lookup: AnswerLookup) -> None:
        self._kube = kube
        self._waiting = waiting
        self._access = access
        self._lookup = lookup

    async def handle_check(self, delivery: Delivery[AnswerCheck]) -> None:
        """Looks for the answer. Returns when nothing more is to be looked for, and raises RetryLater until then."""
        check = delivery.message
        age = (now() - check.asked_at) / timedelta(seconds=1)
        if age < SHORTEST:
            raise RetryLater(SHORTEST - max(age, 0.0))
        with bound(namespace=check.call.namespace, call=check.call.name, channel=check.channel.name):
            try:
                delay = await self._check(check)
            except ChannelError as error:
                log.warning("cannot look for an answer, trying again", error=str(error))
                delay = _after_error(self._next(check), error)
            except KubeError as error:
                log.warning("cannot look for an answer, trying again", error=str(error))
                delay = max(self._next(check), error.retry_after or 0.0)
        if delay is not None:
            raise RetryLater(delay * random.uniform(0.9, 1.1))

    async def _check(self, check: AnswerCheck) -> float | None:
        """Looks once; seconds until the next look, None when there is to be none. Raises ChannelError and KubeError."""
        if not await self._is_waiting(check.call):
            _CHECKS.labels("settled").inc()
            return None
        channel = self._access.find(check.channel)
        if channel is None:
            return _UNUSABLE
        verdict = await self._lookup.look(check.call, channel, check.kind, check.external_call_id)
        if verdict is None:
            _CHECKS.labels("pending").inc()
            return self._next(check)
        _CHECKS.labels("answered").inc()
        if verdict.outcome is Outcome.INVALID:
            log.error("the api server does not take the answer", error=verdict.sentence)
            return LONGEST
        return None

    async def _is_waiting(self, ref: ObjectRef) -> bool:
        """Whether anybody may still answer. Our own view may be behind, so its "no" is verified."""
        if self._waiting.find(ref) is not None:
            return True
        try:
            call = await self._kube.get(TaskRunToolCall, ref.namespace, ref.name)
        except NotFoundError:
            return False
        return call.uid == ref.uid and call.awaits_human

    def _next(self, check: AnswerCheck) -> float:
        return check_delay(check.asked_at, now(), self._waiting.count())


def check_delay(asked_at: datetime, at: datetime, waiting: int) -> float:
    """Seconds until the next look for the answer to a request of this age, one of so many. Pure."""
    age = (at - asked_at) / timedelta(seconds=1)
    return min(LONGEST, max(SHORTEST, age / 10, waiting / LOOKS_PER_SECOND))


def _after_error(usual: float, error: ChannelError) -> float:
    return max(usual, error.retry_after or 0.0, SHORTEST * 2 if error.retryable else LONGEST)
