"""What the Task's reconciler remembers between its steps."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kubechain_common.api.names import turn_key
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.messaging.errors import BusUnavailableError
from kubechain_common.runtime.inbox import Inbox
from kubechain_common.testing.builders import build_llm, build_task
from kubechain_task_controller.task_reconciler import TaskReconciler
from kubechain_task_controller.watched import Watched


class Dispatcher:
    """Hears of another deletion, once, while it takes the first request back."""

    def __init__(self) -> None:
        self.meanwhile: Any = None
        self.withdrawn: list[str] = []
        self.away = False

    async def withdraw(self, unit: str, *subjects: str) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if self.away:
            raise BusUnavailableError("down")
        self.withdrawn.append(unit)


def build_reconciler(dispatcher: Dispatcher) -> TaskReconciler:
    watched = Watched.build(cast("Any", None), "")
    inbox: Inbox[LLMResult] = Inbox(lambda result: result.task, lambda ref: False)
    unused = cast("Any", None)
    return TaskReconciler(unused, watched, cast("Any", dispatcher), unused, inbox, unused, unused)


async def test_a_deletion_that_is_heard_of_while_another_is_dealt_with_is_not_lost() -> None:
    first, second = build_task(), build_task()
    second.metadata.uid = "uid-second"
    dispatcher = Dispatcher()
    reconciler = build_reconciler(dispatcher)
    reconciler.handle_deleted(first)
    dispatcher.meanwhile = lambda: reconciler.handle_deleted(second)
    await reconciler.reconcile(first.key)
    assert dispatcher.withdrawn == [turn_key(first.uid, 0), turn_key(second.uid, 0)]


async def test_a_deletion_is_kept_until_its_request_was_taken_back() -> None:
    deleted = build_task()
    dispatcher = Dispatcher()
    reconciler = build_reconciler(dispatcher)
    reconciler.handle_deleted(deleted)
    dispatcher.away = True
    with pytest.raises(BusUnavailableError):
        await reconciler.reconcile(deleted.key)
    dispatcher.away = False
    for _ in range(2):
        await reconciler.reconcile(deleted.key)
    assert dispatcher.withdrawn == [turn_key(deleted.uid, 0)]


def test_an_answer_is_priced_by_whoever_gave_it() -> None:
    reconciler = build_reconciler(Dispatcher())
    own = build_llm(prices={"inputPerMillion": "1", "outputPerMillion": "1"})
    spare = build_llm(name="spare", prices={"inputPerMillion": "2", "outputPerMillion": "2"})
    free = build_llm(name="free")
    for llm in (own, spare, free):
        reconciler._watched.llms.observe(llm)
    by_itself = LLMResult(task=ObjectRef.of(build_task()), turn=1, outcome="Message")
    by_spare = by_itself.model_copy(update={"answered_by": ObjectRef.of(spare)})
    by_free = by_itself.model_copy(update={"answered_by": ObjectRef.of(free)})
    assert reconciler._find_prices(own, None) == reconciler._find_prices(own, by_itself) == own.spec.prices
    assert reconciler._find_prices(own, by_spare) == spare.spec.prices
    assert reconciler._find_prices(own, by_free) == own.spec.prices, "an estimate is better than nothing"
    assert reconciler._find_prices(None, by_itself) is None
