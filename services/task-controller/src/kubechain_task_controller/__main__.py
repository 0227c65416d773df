"""The task-controller process: two controllers and one consumer of results, run by whoever holds the Lease.

Informers and queues live on every replica, so that a standby takes over with warm caches; only the leader works on
them.
"""

from __future__ import annotations

import asyncio

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.controller import Controller, Key
from kubechain_common.kube.informer import Change
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.messages.topology import LLM_REQUESTS, LLM_RESULTS, LLM_RESULTS_CONSUMER
from kubechain_common.messaging.consumer import Consumer, Poison
from kubechain_common.messaging.dispatcher import Dispatcher
from kubechain_common.runtime.inbox import Inbox
from kubechain_common.runtime.leadership import run_led
from kubechain_common.runtime.service import ServiceContext, run_service
from kubechain_task_controller.agent_reconciler import AgentReconciler
from kubechain_task_controller.core.unreadable import build_unreadable_result
from kubechain_task_controller.task_reconciler import TaskReconciler
from kubechain_task_controller.watched import Watched

NAME = "task-controller"


class TaskController:
    """The parts of the process, wired. A term is one time of leading: its controllers begin and end with it."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._watched = Watched.build(context.kube, context.settings.watch_namespace)
        self._term: Term | None = None
        self._watched.wake_tasks(self._enqueue_task)
        self._watched.wake_agents(self._enqueue_agent)
        self._watched.tasks.add_handler(self._handle_deletion)
        context.bus.on_topology_lost(self._look_again)
        context.bus.on_reconnect(self._look_again)

    async def run(self) -> None:
        """Runs until the process is asked to stop."""
        await run_led(self._context, NAME, self._watched.all(), self._lead)

    async def _lead(self) -> None:
        self._term = Term(self._context, self._watched)
        try:
            await self._term.run()
        finally:
            self._term = None

    def _enqueue_task(self, key: Key) -> None:
        if self._term is not None:
            self._term.tasks.queue.add(key)

    def _enqueue_agent(self, key: Key) -> None:
        if self._term is not None:
            self._term.agents.queue.add(key)

    def _handle_deletion(self, change: Change[Task]) -> None:
        if self._term is not None and change.kind == "deleted":
            self._term.reconciler.forget(change.obj)

    def _look_again(self) -> None:
        if self._term is not None:
            self._term.look_again()


class Term:
    """What works while this process leads."""

    def __init__(self, context: ServiceContext, watched: Watched) -> None:
        self._context = context
        self._watched = watched
        self._dispatcher = Dispatcher(context.bus, LLM_REQUESTS, LLM_RESULTS)
        self._inbox: Inbox[LLMResult] = Inbox(lambda result: result.task, self._enqueue_owner)
        recorder = context.recorder
        self.reconciler = TaskReconciler(
            context.kube, watched, self._dispatcher, self._inbox, recorder.for_component("task-controller")
        )
        agents = AgentReconciler(context.kube, watched, recorder.for_component("agent-controller"))
        self.tasks = Controller("task", self.reconciler.reconcile, workers=32)
        self.agents = Controller("agent", agents.reconcile, workers=8)

    async def run(self) -> None:
        """Looks at everything once, then at whatever changes."""
        for agent in self._watched.agents.list():
            self.agents.queue.add(agent.key)
        self.look_again()
        results = Consumer(
            self._context.bus,
            LLM_RESULTS_CONSUMER,
            LLMResult,
            self._inbox.handle,
            concurrency=LLM_RESULTS_CONSUMER.max_ack_pending,
            on_poison=self._handle_poison,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self.tasks.run())
            group.create_task(self.agents.run())
            group.create_task(results.run(self._context.stopping))

    async def _handle_poison(self, poison: Poison) -> None:
        """A result that can not be read ends its Task with an error; whose it is, its subject says."""
        result = build_unreadable_result(poison.subject, poison.reason)
        if result is not None:
            await self._inbox.take(result)

    def _enqueue_owner(self, ref: ObjectRef) -> bool:
        key = self._watched.key_of_task(ref)
        if key is not None:
            self.tasks.queue.add(key)
        return key is not None

    def look_again(self) -> None:
        """What is on its way is not known any more: every Task finds out for itself."""
        self._dispatcher.forget_all()
        for task in self._watched.tasks.list():
            self.tasks.queue.add(task.key)


async def start(context: ServiceContext) -> None:
    await TaskController(context).run()


def main() -> None:
    """Entry point of the console script."""
    run_service(NAME, start)


if __name__ == "__main__":
    main()
