"""Reconciles a kind that stands for another side: are its Secrets there, and does the other side accept what they hold?

The other side is asked once for each combination of spec and secrets, and once after a start, in a way that no person
notices; the answer is remembered, so the echo of our own write or a resync costs nothing. Trouble on the way is looked
at again after a back-off; everything else waits for the change that would heal it, of the object or of a Secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar

from kubechain_common.api.v1alpha1 import LLM, ContactChannel
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.api.v1alpha1.status import ReadinessStatus
from kubechain_common.kube.controller import Result
from kubechain_common.kube.informer import Key

_RECHECK_REFUSED = 300.0


class Secrets(Protocol):
    """What the other side is asked with; ``digest`` tells two of them apart without telling them."""

    @property
    def digest(self) -> str: ...


R = TypeVar("R", bound=LLM | ContactChannel)
R_contra = TypeVar("R_contra", bound=LLM | ContactChannel, contravariant=True)
S = TypeVar("S", bound=Secrets)


@dataclass(frozen=True)
class Verdict:
    """The status to show, with the reason of its event and a sentence for the user."""

    status: Literal["Ready", "Error"]
    reason: str
    detail: str


@dataclass(frozen=True)
class Trouble:
    """The other side did not say yes: a sentence for the user. ``retry_after`` is in seconds, as it asked for it."""

    detail: str
    retryable: bool
    retry_after: float | None = None


class Validation(Protocol[R_contra, S]):
    """What differs from kind to kind."""

    async def prepare(self, obj: R_contra) -> S | Verdict:
        """The secrets to ask with, or the verdict where there is no use in asking. Raises KubeError."""
        ...

    async def ask(self, obj: R_contra, secrets: S) -> str | Trouble:
        """Asks the other side, without side effects; a sentence that says what is fine, or the trouble."""
        ...

    def retry_delay(self, failures: int, retry_after: float | None) -> float:
        """Seconds to wait after the retryable trouble number ``failures`` (from 1)."""
        ...

    async def write(self, obj: R_contra, status: ReadinessStatus) -> None:
        """Writes the status. Raises as ``write_status`` does."""
        ...


class Events(Protocol):
    """Where events go."""

    def event(self, obj: Resource, event_type: Literal["Normal", "Warning"], reason: str, message: str) -> None: ...


@dataclass(frozen=True)
class _Checked:
    """What the other side said last. ``retry_at`` is a time of the event loop's clock."""

    fingerprint: tuple[str, int, str]
    verdict: Verdict | None
    failures: int
    retry_at: float | None


class ValidatedKind(Generic[R, S]):
    """The only writer of the kind's status; lives for as long as this process leads.

    ``greeting``, where there is one, is told as an event before the first look at a new object.
    """

    def __init__(
        self,
        get: Callable[[str, str], R | None],
        validation: Validation[R, S],
        events: Events,
        now: Callable[[], datetime],
        *,
        greeting: str = "",
    ) -> None:
        self._get = get
        self._validation = validation
        self._events = events
        self._now = now
        self._greeting = greeting
        self._checked: dict[Key, _Checked] = {}

    async def reconcile(self, key: Key) -> Result | None:
        """Bring the status of the object in line with what is true of it."""
        obj = self._get(*key)
        if obj is None or obj.metadata.deleting:
            self._checked.pop(key, None)
            return None
        before = self._checked.get(key)
        if self._greeting and before is None and obj.status.status is None:
            self._events.event(obj, "Normal", "Initializing", self._greeting)
        secrets = await self._validation.prepare(obj)
        if isinstance(secrets, Verdict):
            self._checked.pop(key, None)
            await self._apply(obj, secrets)
            return None
        checked = self._checked[key] = await self._check(obj, secrets, before)
        if checked.verdict is not None:
            await self._apply(obj, checked.verdict, rechecked=before is not None and checked is not before)
        return None if checked.retry_at is None else Result(max(0.0, checked.retry_at - _loop_time()))

    async def _check(self, obj: R, secrets: S, last: _Checked | None) -> _Checked:
        """What the other side says, from memory as long as that counts."""
        fingerprint = (obj.uid, obj.metadata.generation, secrets.digest)
        if last is not None and last.fingerprint != fingerprint:
            last = None
        if last is not None and (last.retry_at is None or _loop_time() < last.retry_at):
            return last
        outcome = await self._validation.ask(obj, secrets)
        failures, retry_at = last.failures if last is not None else 0, None
        if isinstance(outcome, Trouble) and outcome.retryable:
            failures += 1
            retry_at = _loop_time() + self._validation.retry_delay(failures, outcome.retry_after)
        elif isinstance(outcome, Trouble):
            retry_at = _loop_time() + _RECHECK_REFUSED  # the refusal may have been the other side's own trouble
        return _Checked(fingerprint, _judge(obj, outcome), failures, retry_at)

    async def _apply(self, obj: R, verdict: Verdict, *, rechecked: bool = False) -> None:
        old, generation = obj.status, obj.metadata.generation
        new = old.mark(verdict.status, verdict.reason, verdict.detail, generation=generation, now=self._now())
        changed = _said(old) != _said(new)
        if changed:
            await self._validation.write(obj, new)
        if changed or (rechecked and new.ready):
            self._events.event(obj, "Normal" if new.ready else "Warning", verdict.reason, new.status_detail)


def _judge(obj: LLM | ContactChannel, outcome: str | Trouble) -> Verdict | None:
    """The verdict on what the other side said.

    None keeps the status as it is: another side that is away for a moment is no reason to take a validated object, and
    everything that depends on it, out of service. The work itself has retries of its own.
    """
    if isinstance(outcome, str):
        return Verdict("Ready", "ValidationSucceeded", outcome)
    if outcome.retryable and obj.status.ready and obj.status.observed_generation == obj.metadata.generation:
        return None
    return Verdict("Error", "ValidationFailed", outcome.detail)


def _said(status: ReadinessStatus) -> tuple[str | None, str, int | None]:
    return status.status, status.status_detail, status.observed_generation


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
