"""Sees to it that each request to an outside API without a push has its check in the stream.

Whoever asks a person publishes the check itself. This is for what the bus lost: the leader compares the calls that
wait with the checks that are there, when it begins, when the bus was away, and when a channel appears.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Protocol

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.contactchannel import ContactChannel
from kubechain_common.api.v1alpha1.taskruntoolcall import HUMAN_ASKED
from kubechain_common.kube.backoff import Backoff
from kubechain_common.kube.errors import KubeError
from kubechain_common.messages import Envelope, ObjectRef
from kubechain_common.messages.human import AnswerCheck
from kubechain_common.messages.topology import ANSWER_CHECKS, answer_check_subject
from kubechain_common.messaging.errors import MessagingError
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.channels.registry import is_polled
from kubechain_human_bridge.contactchannels.call_channel import ChannelFinder, ObjectReader, kind_of
from kubechain_human_bridge.waiting_calls import was_asked

log = get_logger(__name__)

SETTLE_SECONDS = 15.0
"""Seconds from a look to a second one: the first may not have seen what was being written while the bus was away."""


class ScheduleBus(Protocol):
    """The part of the Bus that this needs."""

    async def find_subjects(self, stream: str, pattern: str) -> list[str]: ...

    async def publish(self, subject: str, message: Envelope, *, msg_id: None) -> object: ...


class Waiting(Protocol):
    def waiting(self) -> Iterable[TaskRunToolCall]: ...


class Channels(Protocol):
    def find_named(self, namespace: str, name: str) -> ContactChannel | None: ...


class AnswerSchedule:
    """Publishes missing checks; only the leader does."""

    def __init__(self, bus: ScheduleBus, kube: ObjectReader, waiting: Waiting, channels: Channels) -> None:
        self._bus = bus
        self._kube = kube
        self._waiting = waiting
        self._channels = channels
        self._look = asyncio.Event()

    def look_again(self) -> None:
        """Has the leader look again, because checks may have been lost."""
        self._look.set()

    async def lead(self) -> None:
        """Looks now, and again whenever ``look_again`` says so, until cancelled."""
        backoff = Backoff(0.5, 10.0)
        second_look = True
        while True:
            self._look.clear()
            try:
                await self.publish_missing()
            except (MessagingError, KubeError) as error:
                log.warning("cannot publish the missing answer checks, trying again", error=str(error))
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            second_look = not await self._wait(SETTLE_SECONDS if second_look else None)

    async def _wait(self, seconds: float | None) -> bool:
        """Waits until ``look_again`` is called, or for so many seconds; whether the time was up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._look.wait()
                return False
        return True

    async def publish_missing(self) -> int:
        """Publishes the checks that are missing; how many they were. Raises MessagingError and KubeError."""
        there = await self._bus.find_subjects(ANSWER_CHECKS.name, answer_check_subject("*", "*", "*"))
        # By the call alone: one that was asked through another channel is looked for there.
        checked = {tuple(subject.split(".")[-2:]) for subject in there}
        finder = ChannelFinder(self._kube)
        published = 0
        for call in self._waiting.waiting():
            if (call.namespace, call.uid) in checked or not was_asked(call):
                continue
            name = await finder.find_name(call)
            channel = self._channels.find_named(call.namespace, name) if name else None
            if channel is not None and is_polled(channel.spec):
                await self._publish(call, channel)
                published += 1
        if published:
            log.info("missing answer checks published", count=published)
        return published

    async def _publish(self, call: TaskRunToolCall, channel: ContactChannel) -> None:
        check = AnswerCheck(
            call=ObjectRef.of(call),
            channel=ObjectRef.of(channel),
            kind=kind_of(call),
            external_call_id=call.status.external_call_id,
            asked_at=next(c.last_transition_time for c in call.status.conditions if c.type == HUMAN_ASKED),
        )
        await self._bus.publish(answer_check_subject(channel.uid, call.namespace, call.uid), check, msg_id=None)
