"""Reconciles LLM: is the spec usable, is the key there, does the provider accept it?

The provider is asked once for each combination of spec and key, and once after a start; the answer is remembered, so
the echo of our own write or a resync costs nothing. Trouble on the way to the provider is looked at again after a
back-off; everything else waits for the change that would heal it, of the LLM or of its Secret.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.llm import LLMStatus
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.controller import Result
from kubechain_common.kube.informer import Key
from kubechain_common.telemetry.logging import get_logger
from kubechain_llm_gateway.credentials import Credentials, CredentialsProblem
from kubechain_llm_gateway.llm_access import LLMAccess, LLMStore
from kubechain_llm_gateway.llm_decision import (
    Verdict,
    build_status,
    check_configuration,
    judge_configuration,
    judge_missing_key,
    judge_validation,
    says_the_same,
)
from kubechain_llm_gateway.providers.base import Validation
from kubechain_llm_gateway.providers.errors import ProviderError

log = get_logger(__name__)

_FIRST_RETRY = 1.0
_LONGEST_RETRY = 60.0
_RECHECK_REFUSED = 300.0

StatusWriter = Callable[[LLM, LLMStatus], Awaitable[LLM]]


class Events(Protocol):
    """Where events go."""

    def event(self, obj: Resource, event_type: Literal["Normal", "Warning"], reason: str, message: str) -> None: ...


@dataclass(frozen=True)
class _Checked:
    """What the provider said last. ``retry_at`` is a time of the event loop's clock."""

    fingerprint: tuple[str, int, str]
    verdict: Verdict | None
    failures: int = 0
    retry_at: float | None = None


class LLMReconciler:
    """The only writer of LLM status; lives for as long as this process leads."""

    def __init__(
        self, llms: LLMStore, access: LLMAccess, write: StatusWriter, events: Events, now: Callable[[], datetime]
    ) -> None:
        self._llms = llms
        self._access = access
        self._write = write
        self._events = events
        self._now = now
        self._checked: dict[Key, _Checked] = {}

    async def reconcile(self, key: Key) -> Result | None:
        """Bring the status of the LLM in line with what is true of it."""
        llm = self._llms.get(*key)
        if llm is None or llm.metadata.deleting:
            self._checked.pop(key, None)
            return None
        before = self._checked.get(key)
        verdict = await self._judge(llm)
        after = self._checked.get(key)
        if verdict is not None:
            await self._apply(llm, verdict, rechecked=before is not None and after is not before)
        if after is None or after.retry_at is None:
            return None
        return Result(requeue_after=max(0.0, after.retry_at - _loop_time()))

    async def _judge(self, llm: LLM) -> Verdict | None:
        problem = check_configuration(llm)
        if problem is not None:
            self._checked.pop(llm.key, None)
            return judge_configuration(problem)
        credentials = await self._access.read_credentials(llm)
        if isinstance(credentials, CredentialsProblem):
            self._checked.pop(llm.key, None)
            return judge_missing_key(credentials.detail)
        return (await self._check(llm, credentials)).verdict

    async def _check(self, llm: LLM, credentials: Credentials) -> _Checked:
        """What the provider says of the key, from memory as long as that counts."""
        fingerprint = (llm.uid, llm.metadata.generation, credentials.digest)
        last = self._checked.get(llm.key)
        if (
            last is not None
            and last.fingerprint == fingerprint
            and (last.retry_at is None or _loop_time() < last.retry_at)
        ):
            return last
        outcome = await self._ask_provider(llm, credentials)
        failures = last.failures if last is not None and last.fingerprint == fingerprint else 0
        retry_at = None
        if isinstance(outcome, ProviderError) and outcome.retryable:
            failures += 1
            retry_at = _loop_time() + _retry_delay(failures, outcome.retry_after)
            log.warning("llm validation failed, retrying", namespace=llm.namespace, llm=llm.name, error=outcome.message)
        elif isinstance(outcome, ProviderError):
            retry_at = _loop_time() + _RECHECK_REFUSED  # the refusal may have been the provider's own trouble
        checked = _Checked(fingerprint, judge_validation(llm, outcome), failures, retry_at)
        self._checked[llm.key] = checked
        return checked

    async def _ask_provider(self, llm: LLM, credentials: Credentials) -> Validation | ProviderError:
        provider = await self._access.provider_for(llm, credentials)
        try:
            return await provider.validate()
        except ProviderError as error:
            return error

    async def _apply(self, llm: LLM, verdict: Verdict, *, rechecked: bool) -> None:
        status = build_status(llm, verdict, self._now())
        changed = not says_the_same(llm.status, status)
        if changed:
            await self._write(llm, status)
            log.info("llm judged", namespace=llm.namespace, llm=llm.name, status=verdict.status, detail=verdict.detail)
        if changed or (rechecked and verdict.status == "Ready"):
            self._events.event(llm, verdict.event_type, verdict.reason, status.status_detail)


def _retry_delay(failures: int, retry_after: float | None) -> float:
    backoff = min(_FIRST_RETRY * 2.0 ** min(failures - 1, 30), _LONGEST_RETRY)
    return max(backoff, min(retry_after or 0.0, _LONGEST_RETRY)) * (1 + random.random() / 4)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
