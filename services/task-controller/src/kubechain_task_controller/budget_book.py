"""What namespaces with a budget have used, written down so that deleted Tasks go on counting (docs/decisions/0016).

One ConfigMap in the controller's own namespace, where nobody whose Tasks it bounds may write: a line of JSON for each
namespace, for the present period. It is written a moment after something was used, for all namespaces at once, and
before a Task is deleted because its time has come. How a new leader goes on from it, ``core.tally`` says.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.backoff import Backoff
from kubechain_common.kube.client import MERGE_PATCH, KubeClient
from kubechain_common.kube.errors import ForbiddenError, InvalidError, KubeError, NotFoundError
from kubechain_common.kube.informer import Change
from kubechain_common.kube.paths import core_path
from kubechain_common.runtime.clock import now
from kubechain_common.telemetry.logging import get_logger
from kubechain_task_controller.core.namespace_budget import NamespaceBudget
from kubechain_task_controller.core.periods import count_for_periods
from kubechain_task_controller.core.spent import Spent, write_amount
from kubechain_task_controller.watched import Watched

NAME = "kubechain-budgets"
WRITE_DELAY = 2.0
"""Seconds from the first use until it is written down, with all that comes meanwhile."""
_BACKOFF = (1.0, 30.0)

log = get_logger(__name__)


class BudgetBook:
    """Keeps the book for one term of a leader."""

    def __init__(self, kube: KubeClient, watched: Watched, namespace: str) -> None:
        self._kube = kube
        self._watched = watched
        self._spent = watched.spent_in_period
        self._namespace = namespace
        self._periods: dict[str, str] = {}
        self._to_write: set[str] = set()
        self._to_remove: set[str] = set()
        self._used = asyncio.Event()
        self._writing = asyncio.Lock()

    async def find_spent(self, budget: NamespaceBudget) -> Spent:
        """What the namespace has used in the present period. Raises KubeError."""
        namespace, period = budget.namespace, budget.period(now())
        key = (namespace, period)
        if not self._spent.is_resumed(key):
            written = await self._read()
            self._spent.resume(key, *parse_line(written.get(namespace, ""), period))
        before = self._periods.get(namespace)
        if before != period:
            self._periods[namespace] = period
            if before is not None:
                self._spent.forget((namespace, before))
            self._mark(namespace)
        return self._spent.total(key)

    def note(self, change: Change[Task]) -> None:
        """Takes a change of a Task in. The sums have to have taken it before."""
        namespace = change.obj.namespace
        if namespace in self._periods and (namespace, self._periods[namespace]) in count_for_periods(change.obj):
            self._mark(namespace)

    async def run(self) -> None:
        """Writes down what is used, until cancelled."""
        backoff = Backoff(*_BACKOFF)
        open_yet = False
        while True:
            try:
                if not open_yet:
                    await self._open()
                    open_yet = True
                await self._used.wait()
                await asyncio.sleep(WRITE_DELAY)
                await self._write()
                backoff.reset()
            except KubeError as error:
                log.warning("cannot write down what namespaces used, retrying", error=str(error))
                await asyncio.sleep(backoff.next())

    async def write_down(self, budget: NamespaceBudget) -> None:
        """Returns once all that the namespace used is written down, or the API server refused it for good.

        Raises KubeError when it may be written later.
        """
        await self.find_spent(budget)  # a new leader may have had nothing else to do with this namespace yet
        try:
            await self._write(only_if=budget.namespace)
        except (InvalidError, ForbiddenError) as error:  # no reason to keep what is to be deleted
            log.warning("cannot write down what namespaces used", error=str(error))

    async def _open(self) -> None:
        """Begins to count deletions; what was deleted before is in the book, or is not known any more."""
        for namespace in self._watched.namespaces.list():
            budget = self._watched.budget_of(namespace.name)
            if budget is not None:
                await self.find_spent(budget)

    def _mark(self, namespace: str) -> None:
        self._to_write.add(namespace)
        self._used.set()

    async def _read(self) -> Mapping[str, str]:
        try:
            found = await self._kube.request("GET", core_path("configmaps", self._namespace, NAME))
        except NotFoundError:
            return {}
        data: Mapping[str, str] = found.get("data") or {}
        self._to_remove |= {name for name in data if self._watched.namespaces.get("", name) is None}
        return data

    async def _write(self, only_if: str = "") -> None:
        async with self._writing:
            if only_if and only_if not in self._to_write:
                return
            namespaces, gone = self._to_write, self._to_remove
            self._to_write, self._to_remove = set(), set()
            self._used.clear()
            lines = {name: self._build_line(name) for name in namespaces}
            try:
                await self._patch({**dict.fromkeys(gone), **lines})
            except KubeError:
                self._to_write |= namespaces
                self._to_remove |= gone
                self._used.set()
                raise

    async def _patch(self, data: Mapping[str, str | None]) -> None:
        path = core_path("configmaps", self._namespace, NAME)
        try:
            await self._kube.request("PATCH", path, body={"data": data}, content_type=MERGE_PATCH)
        except NotFoundError:
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": NAME},
                "data": {name: line for name, line in data.items() if line is not None},
            }
            await self._kube.request("POST", core_path("configmaps", self._namespace), body=body)

    def _build_line(self, namespace: str) -> str:
        period = self._periods[namespace]
        key = (namespace, period)
        return write_line(period, self._spent.total(key), self._spent.carried(key))


def write_line(period: str, total: Spent, carried: Spent) -> str:
    """The book's line about a namespace. ``carried`` is the part of ``total`` whose Tasks are gone."""
    line: dict[str, Any] = {"period": period, **_write(total, "tokens", "cost")}
    return json.dumps({**line, **_write(carried, "tokensOfDeleted", "costOfDeleted")})


def parse_line(line: str, period: str) -> tuple[Spent, Spent]:
    """(total, the part of deleted Tasks); nothing for a line of another period, or one that somebody else wrote."""
    try:
        found = json.loads(line) if line else {}
        if not isinstance(found, dict) or found.get("period") != period:
            return Spent(), Spent()
        return _parse(found, "tokens", "cost"), _parse(found, "tokensOfDeleted", "costOfDeleted")
    except (ValueError, TypeError, AttributeError, OverflowError, InvalidOperation, RecursionError):
        log.warning("a line of the budgets cannot be read", configmap=NAME)
        return Spent(), Spent()


def _write(spent: Spent, tokens: str, cost: str) -> dict[str, Any]:
    return {tokens: spent.total, cost: {currency: write_amount(amount) for currency, amount in spent.costs.items()}}


def _parse(found: Mapping[str, Any], tokens: str, cost: str) -> Spent:
    costs = {str(currency): Decimal(str(amount)) for currency, amount in (found.get(cost) or {}).items()}
    if not all(amount.is_finite() for amount in costs.values()):
        raise ValueError(cost)
    return Spent(total=int(found.get(tokens) or 0), costs=costs)
