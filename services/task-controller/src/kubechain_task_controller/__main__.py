"""The task-controller process: two controllers and one consumer of results, run by whoever holds the Lease.

Informers and queues live on every replica, so that a standby takes over with warm caches; only the leader works on
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.controller import Controller
from kubechain_common.kube.informer import Change, Key
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.messages.topology import LLM_REQUESTS, LLM_RESULTS, LLM_RESULTS_CONSUMER
from kubechain_common.messaging.consumer import Consumer, Poison
from kubechain_common.messaging.dispatcher import Dispatcher
from kubechain_common.runtime.inbox import Inbox
from kubechain_common.runtime.leadership import Leadership
from kubechain_common.runtime.service import ServiceContext, run_service
from kubechain_task_controller.agent_reconciler import AgentReconciler
from kubechain_task_controller.budget_book import BudgetBook
from kubechain_task_controller.core.unreadable import build_unreadable_result
from kubechain_task_controller.drafts import Drafts
from kubechain_task_controller.endings import Endings
from kubechain_task_controller.task_reconciler import TaskReconciler
from kubechain_task_controller.watched import Watched

NAME = "task-controller"
USAGE_DELAY = 3.0
"""Seconds until an Agent's usage is written down, with that of all Tasks that end meanwhile."""


class TaskTerm:
    """What works while this process leads."""

    def __init__(self, context: ServiceContext, watched: Watched, leads: Callable[[], bool]) -> None:
        self._context = context
        self._watched = watched
        self._dispatcher = Dispatcher(context.bus, LLM_REQUESTS, LLM_RESULTS, leads)
        self._inbox: Inbox[LLMResult] = Inbox(lambda result: result.task, self._enqueue_owner)
        self.endings = Endings(context.bus.peers)
        self.drafts = Drafts(context.kube.activity, lambda key: self.tasks.queue.add(key))
        recorder = context.recorder
        self.book = BudgetBook(context.kube, watched, context.settings.namespace)
        self.reconciler = TaskReconciler(
            context.kube,
            watched,
            self._dispatcher,
            context.bus.started_calls,
            self._inbox,
            recorder.for_component("task-controller"),
            self.book,
            self.drafts,
            leads,
        )
        agents = AgentReconciler(context.kube, watched, recorder.for_component("agent-controller"))
        self.tasks = Controller("task", self.reconciler.reconcile, workers=32)
        self.agents = Controller("agent", agents.reconcile, workers=8)

    async def run(self) -> None:
        """Looks once at everything that may need something, then at whatever changes."""
        self._watched.spent_by_agent.begin_term()
        self._watched.spent_in_period.begin_term()
        for agent in self._watched.agents.list():
            self.agents.queue.add(agent.key)
        for key in self._watched.tasks_to_look_at():
            self.drafts.doubt(key)  # an earlier leader may have sent its request
            self.tasks.queue.add(key)
        results = Consumer(
            self._context.bus,
            LLM_RESULTS_CONSUMER,
            LLMResult,
            self._inbox.handle,
            concurrency=LLM_RESULTS_CONSUMER.max_ack_pending,
            on_poison=self._handle_poison,
            exclusive=True,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self.tasks.run())
            group.create_task(self.agents.run())
            group.create_task(self.book.run())
            group.create_task(self.drafts.run())
            group.create_task(self.endings.run())
            group.create_task(results.run(self._context.stopping))

    async def _handle_poison(self, poison: Poison) -> None:
        """Ends the Task of an unreadable result with an error; the subject says whose result it is."""
        result = build_unreadable_result(poison.subject, poison.reason)
        if result is not None:
            await self._inbox.take(result)

    def _enqueue_owner(self, ref: ObjectRef) -> Key | None:
        key = self._watched.key_of_task(ref)
        if key is not None:
            self.tasks.queue.add(key)
        return key

    def look_again(self) -> None:
        """Has every unfinished Task find out what is on its way, because that is not known any more."""
        self._dispatcher.forget_all()
        for task in self._watched.tasks.each():
            if not task.finished:
                self.tasks.queue.add(task.key)


async def start(context: ServiceContext) -> None:
    """Runs until the process is asked to stop."""
    watched = Watched.build(context.kube, context.settings.watch_namespace)
    leadership = Leadership(
        context, NAME, watched.all(), lambda: TaskTerm(context, watched, leads=lambda: leadership.is_certain())
    )

    def handle_deleted(change: Change[Task]) -> None:
        if change.kind == "deleted":
            leadership.tell(lambda term: term.reconciler.handle_deleted(change.obj))

    def note_usage(change: Change[Task]) -> None:
        leadership.tell(lambda term: term.book.note(change))

    def note_ending(change: Change[Task]) -> None:
        leadership.tell(lambda term: term.endings.note(change))

    watched.tasks.add_handler(note_usage)
    watched.tasks.add_handler(note_ending)
    watched.wake_tasks(lambda key: leadership.tell(lambda term: term.tasks.queue.add(key)))
    watched.wake_agents(lambda key: leadership.tell(lambda term: term.agents.queue.add(key)))
    watched.wake_for_usage(lambda key: leadership.tell(lambda term: term.agents.queue.add_after(key, USAGE_DELAY)))
    watched.tasks.add_handler(handle_deleted)
    await leadership.run()


def main() -> None:
    """Entry point of the console script."""
    run_service(NAME, start, takes_from=[LLM_RESULTS])


if __name__ == "__main__":
    main()
