"""Controller: workers that take keys from a workqueue and reconcile them.

Level based: a key says that something about an object may have changed, never what. Whatever ``reconcile`` raises is
survived:

    returns None                 done, the key's back-off ends
    returns Result(after)        done, and once more in ``after`` seconds
    raises ConflictError         decided on a stale copy; again at once (the watch brings the fresh one)
    raises anything else         logged; again after the key's back-off, or the server's Retry-After if that is longer
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from kubechain_common.kube.errors import ConflictError, KubeError
from kubechain_common.kube.metrics import RECONCILE_SECONDS, RECONCILE_TOTAL
from kubechain_common.kube.store import Key
from kubechain_common.kube.workqueue import MAX_DELAY, QueueShutDown, Workqueue
from kubechain_common.telemetry.logging import get_logger

__all__ = ["Controller", "Key", "Result"]

log = get_logger(__name__)

# Well below what is left of a lost lease (duration minus renew deadline): two leaders must not overlap.
DRAIN_SECONDS = 3.0
OUTAGE_DELAY = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a successful reconcile asks for: to be called again in so many seconds, even if nothing changes."""

    requeue_after: float | None = None


Reconcile = Callable[[Key], Awaitable[Result | None]]


class Controller:
    """Feeds ``reconcile`` from ``queue`` with ``workers`` at a time; one key is never reconciled twice at once."""

    def __init__(self, name: str, reconcile: Reconcile, *, workers: int = 16) -> None:
        self.name = name
        self.queue: Workqueue[Key] = Workqueue()
        self._reconcile = reconcile
        self._workers = workers
        self._log = log.bind(controller=name)
        self._seconds = RECONCILE_SECONDS.labels(name)

    async def run(self) -> None:
        """Works until the queue is shut down or the task is cancelled; either way running reconciles may end first.

        After a cancellation they get ``DRAIN_SECONDS``. A controller runs once: its queue stays shut down.
        """
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._work()) for _ in range(self._workers)]
            try:
                await asyncio.wait(workers)
            except asyncio.CancelledError:
                self.queue.shut_down()
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        await asyncio.wait(workers)
                raise

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueShutDown:
                return
            try:
                await self._reconcile_key(key)
            finally:
                self.queue.done(key)

    async def _reconcile_key(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            result = await self._reconcile(key)
        except Exception as error:  # the next attempt, or the next change, heals it
            outcome = self._handle_error(key, error)
        else:
            outcome = self._handle_result(key, result)
        self._seconds.observe(loop.time() - started)
        RECONCILE_TOTAL.labels(self.name, outcome).inc()

    def _handle_result(self, key: Key, result: Result | None) -> str:
        self.queue.forget(key)
        if result is None or result.requeue_after is None:
            return "success"
        self.queue.add_after(key, result.requeue_after)
        return "requeue_after"

    def _handle_error(self, key: Key, error: Exception) -> str:
        namespace, name = key
        retry_after = error.retry_after if isinstance(error, KubeError) else None
        # What was unavailable is tried often: no change wakes the key when it comes back.
        at_most = OUTAGE_DELAY if getattr(error, "retryable", False) else MAX_DELAY
        self.queue.add_rate_limited(key, at_least=retry_after or 0.0, at_most=at_most)
        if isinstance(error, ConflictError):
            self._log.debug("reconcile met a conflict", namespace=namespace, name=name)
            return "conflict"
        if isinstance(error, KubeError) or getattr(error, "retryable", False):
            self._log.warning("reconcile failed, retrying", namespace=namespace, name=name, error=str(error))
        else:
            self._log.error("reconcile failed, retrying", namespace=namespace, name=name, exc_info=error)
        return "error"
