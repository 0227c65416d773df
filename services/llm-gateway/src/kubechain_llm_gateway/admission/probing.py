"""Asks providers that are unavailable whether they are there again; whoever of the replicas claims a probe makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.kube.errors import KubeError
from kubechain_common.runtime.clock import epoch
from kubechain_common.telemetry.logging import get_logger
from kubechain_llm_gateway.admission.circuit import Circuit, answer_probe, claim_probe
from kubechain_llm_gateway.admission.health_board import HealthBoard
from kubechain_llm_gateway.llms.access import LLMAccess, LLMNotUsableError
from kubechain_llm_gateway.providers.errors import ProviderError

log = get_logger(__name__)

_LONGEST_SLEEP = 60.0
"""Seconds between two looks at what is due; a change of some provider's health comes first."""


class Prober:
    """Makes the probes that this replica claims."""

    def __init__(self, board: HealthBoard, find: Callable[[str], LLM | None], access: LLMAccess) -> None:
        self._board = board
        self._find = find
        self._access = access
        self._wake = asyncio.Event()
        self._under_way: set[str] = set()
        board.add_handler(lambda uid: self._wake.set())

    async def run(self) -> None:
        """Probes what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                for uid in self._find_due():
                    self._under_way.add(uid)
                    group.create_task(self._probe(uid))
                await self._sleep()

    def _find_due(self) -> list[str]:
        at = epoch()
        return [uid for uid, due in self._times().items() if due <= at]

    def _times(self) -> dict[str, float]:
        return {
            uid: health.probe_at
            for uid, health in self._board.all().items()
            if health.circuit is Circuit.OPEN and uid not in self._under_way
        }

    async def _sleep(self) -> None:
        due = min(self._times().values(), default=float("inf"))
        try:
            async with asyncio.timeout(min(_LONGEST_SLEEP, max(0.0, due - epoch()))):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _probe(self, uid: str) -> None:
        try:
            llm = self._find(uid)
            if llm is None:
                self._board.forget(uid)
                return
            claimed = await self._board.change(uid, lambda health: claim_probe(health, epoch()))
            if claimed and await self._is_there(llm):
                await self._board.change(uid, lambda health: answer_probe(health, epoch()))
        finally:
            self._under_way.discard(uid)
            self._wake.set()

    async def _is_there(self, llm: LLM) -> bool:
        """Whether the provider answers. One that says no to the key, or to the question, does."""
        try:
            await (await self._access.open_provider(llm)).validate()
        except ProviderError as error:
            log.info("llm probed", namespace=llm.namespace, llm=llm.name, error=error.message)
            return not error.retryable
        except (LLMNotUsableError, KubeError) as error:
            log.info("llm cannot be probed", namespace=llm.namespace, llm=llm.name, error=str(error))
            return False
        except Exception:  # one LLM must not end the gateway of all others
            log.exception("probing failed unexpectedly", namespace=llm.namespace, llm=llm.name)
            return False
        return True
