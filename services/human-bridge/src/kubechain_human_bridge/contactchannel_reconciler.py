"""Reconciles ContactChannel: are its Secrets there, and could it reach its person?

The channel is asked once for each combination of spec and secrets, and once after a start, in a way that no person
notices; the answer is remembered, so the echo of our own write or a resync costs nothing. Trouble on the way to the
other side is looked at again after a back-off; everything else waits for the change that would heal it, of the channel
or of a Secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.contactchannel import ContactChannelStatus
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.backoff import backoff_delay
from kubechain_common.kube.controller import Result
from kubechain_common.kube.informer import Key
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.channel_access import ChannelAccess, ChannelStore
from kubechain_human_bridge.channel_secrets import ChannelSecrets, SecretsProblem
from kubechain_human_bridge.channels.errors import ChannelError
from kubechain_human_bridge.contactchannel_decision import (
    Verdict,
    build_status,
    judge_missing_secret,
    judge_validation,
    says_the_same,
)

log = get_logger(__name__)

_FIRST_RETRY = 1.0
_LONGEST_RETRY = 60.0
_RECHECK_REFUSED = 300.0

StatusWriter = Callable[[ContactChannel, ContactChannelStatus], Awaitable[ContactChannel]]


class Events(Protocol):
    """Where events go."""

    def event(self, obj: Resource, event_type: Literal["Normal", "Warning"], reason: str, message: str) -> None: ...


@dataclass(frozen=True)
class _Checked:
    """What the channel said last. ``retry_at`` is a time of the event loop's clock."""

    fingerprint: tuple[str, int, str]
    verdict: Verdict | None
    failures: int = 0
    retry_at: float | None = None


class ContactChannelReconciler:
    """The only writer of ContactChannel status; lives for as long as this process leads."""

    def __init__(
        self,
        channels: ChannelStore,
        access: ChannelAccess,
        write: StatusWriter,
        events: Events,
        now: Callable[[], datetime],
    ) -> None:
        self._channels = channels
        self._access = access
        self._write = write
        self._events = events
        self._now = now
        self._checked: dict[Key, _Checked] = {}

    async def reconcile(self, key: Key) -> Result | None:
        """Bring the status of the channel in line with what is true of it."""
        channel = self._channels.get(*key)
        if channel is None or channel.metadata.deleting:
            self._checked.pop(key, None)
            return None
        before = self._checked.get(key)
        if before is None and channel.status.status is None:
            self._events.event(channel, "Normal", "Initializing", "Starting validation")
        verdict = await self._judge(channel)
        after = self._checked.get(key)
        if verdict is not None:
            await self._apply(channel, verdict, rechecked=before is not None and after is not before)
        if after is None or after.retry_at is None:
            return None
        return Result(requeue_after=max(0.0, after.retry_at - _loop_time()))

    async def _judge(self, channel: ContactChannel) -> Verdict | None:
        secrets = await self._access.read_secrets(channel)
        if isinstance(secrets, SecretsProblem):
            self._checked.pop(channel.key, None)
            return judge_missing_secret(secrets.detail)
        return (await self._check(channel, secrets)).verdict

    async def _check(self, channel: ContactChannel, secrets: ChannelSecrets) -> _Checked:
        """What the channel says of itself, from memory as long as that counts."""
        fingerprint = (channel.uid, channel.metadata.generation, secrets.digest)
        last = self._checked.get(channel.key)
        if last is not None and last.fingerprint != fingerprint:
            last = None
        if last is not None and (last.retry_at is None or _loop_time() < last.retry_at):
            return last
        outcome = await self._validate(channel, secrets)
        failures, retry_at = last.failures if last is not None else 0, None
        if isinstance(outcome, ChannelError) and outcome.retryable:
            delay = backoff_delay(failures, _FIRST_RETRY, _LONGEST_RETRY)
            failures += 1
            retry_at = _loop_time() + max(delay, min(outcome.retry_after or 0.0, _LONGEST_RETRY))
            log.warning(
                "validation failed, retrying", namespace=channel.namespace, channel=channel.name, error=str(outcome)
            )
        elif isinstance(outcome, ChannelError):
            retry_at = _loop_time() + _RECHECK_REFUSED  # the refusal may have been the other side's own trouble
        checked = _Checked(fingerprint, judge_validation(channel, outcome), failures, retry_at)
        self._checked[channel.key] = checked
        return checked

    async def _validate(self, channel: ContactChannel, secrets: ChannelSecrets) -> str | ChannelError:
        try:
            async with self._access.open_with(channel, secrets) as client:
                return await client.validate()
        except ChannelError as error:
            return error

    async def _apply(self, channel: ContactChannel, verdict: Verdict, *, rechecked: bool) -> None:
        status = build_status(channel, verdict, self._now())
        changed = not says_the_same(channel.status, status)
        if changed:
            await self._write(channel, status)
            log.info("channel judged", namespace=channel.namespace, channel=channel.name, detail=verdict.detail)
        if changed or (rechecked and verdict.status == "Ready"):
            self._events.event(channel, verdict.event_type, verdict.reason, status.status_detail)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
