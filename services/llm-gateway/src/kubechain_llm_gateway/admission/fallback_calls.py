"""The fallbacks of an LLM as they are now: which may be asked, and how many calls at a time each takes from here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.runtime.clock import epoch
from kubechain_llm_gateway.admission.admission import Admission
from kubechain_llm_gateway.admission.circuit import Block
from kubechain_llm_gateway.admission.fallback import is_long, names_of_fallbacks
from kubechain_llm_gateway.llms.access import LLMStore
from kubechain_llm_gateway.llms.concurrency import concurrency_of
from kubechain_llm_gateway.llms.decision import check_configuration


class FallbackCalls:
    """The calls that fallbacks take over on this replica. A fallback's maxConcurrency counts its own requests over all
    replicas; what it takes over from others does not come by its consumer, so that is bounded by the same number once
    more, on each replica.
    """

    def __init__(self, llms: LLMStore, admission: Admission) -> None:
        self._llms = llms
        self._admission = admission
        self._slots: dict[str, tuple[int, asyncio.Semaphore]] = {}

    def find(self, llm: LLM) -> list[LLM]:
        """The fallbacks that may be asked now, in the order of the spec."""
        found = (self._llms.get(llm.namespace, name) for name in names_of_fallbacks(self._latest(llm)))
        return [other for other in found if other is not None and self._may_be_asked(other)]

    def leave_of(self, llm: LLM) -> Callable[[Block], bool]:
        """A function that says whether a call of the LLM had better go to a fallback than wait for what blocks it."""
        return lambda block: is_long(block, epoch()) and bool(self.find(llm))

    def slots_of(self, other: LLM) -> asyncio.Semaphore:
        """The semaphore to hold during a call of the fallback."""
        wanted = concurrency_of(self._latest(other))
        size, slots = self._slots.get(other.uid, (0, asyncio.Semaphore(0)))
        if size != wanted:
            slots = asyncio.Semaphore(wanted)
            self._slots[other.uid] = wanted, slots
        return slots

    def forget(self, uid: str) -> None:
        """Forgets the LLM, which is gone."""
        self._slots.pop(uid, None)

    def _latest(self, llm: LLM) -> LLM:
        """The LLM as it is now; a request may have waited for long."""
        latest = self._llms.get(llm.namespace, llm.name)
        return latest if latest is not None and latest.uid == llm.uid else llm

    def _may_be_asked(self, other: LLM) -> bool:
        block = self._admission.find_block(other)
        return check_configuration(other) is None and (block is None or not is_long(block, epoch()))
