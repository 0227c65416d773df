"""The task-controller process: two controllers and one consumer of results, run by whoever holds the Lease.

Informers and queues live on every replica, so that a standby takes over with warm caches; only the leader works on
them.
"""

from __future__ import annotations

import asyncio

from kubechain_common.kube.controller import Controller
from kubechain_common.kube.lease import LeaderElector
from kubechain_common.messaging.consumer import Consumer
from kubechain_common.runtime.service import ServiceContext, run_service

from kubechain_common.messages import LLMResult
from kubechain_common.messages.topology import LLM_REQUESTS, LLM_RESULTS, LLM_RESULTS_CONSUMER
from kubechain_common.messaging.dispatcher import Dispatcher
from kubechain_common.runtime.inbox import Inbox
from kubechain_task_controller.agent_reconciler import AgentReconciler
from kubechain_task_controller.task_reconciler import TaskReconciler
from kubechain_task_controller.watched import Watched

NAME = "task-controller"


class TaskController:
    """The parts of the process, wired."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._watched = Watched.build(context.kube, context.settings.watch_namespace)
        self._dispatcher = Dispatcher(context.bus, LLM_REQUESTS, LLM_RESULTS)
        self._inbox: Inbox[LLMResult] = Inbox(lambda result: result.task, lambda key: self._tasks.queue.add(key))
        recorder = context.recorder
        tasks = TaskReconciler(
            context.kube, self._watched, self._dispatcher, self._inbox, recorder.for_component("task-controller")
        )
        agents = AgentReconciler(context.kube, self._watched, recorder.for_component("agent-controller"))
        self._tasks = Controller("task", tasks.reconcile, workers=32)
        self._agents = Controller("agent", agents.reconcile, workers=8)
        self._watched.wake_tasks(self._tasks.queue.add)
        self._watched.wake_agents(self._agents.queue.add)
        context.bus.on_topology_lost(self._look_again)

    async def run(self) -> None:
        """Runs until the process is asked to stop."""
        context = self._context
        elector = LeaderElector(
            context.kube, namespace=context.settings.namespace, name=f"kubechain-{NAME}", identity=context.identity
        )
        context.health.add_check("caches", lambda: all(i.has_synced.is_set() for i in self._watched.all()))
        async with asyncio.TaskGroup() as group:
            informers = [group.create_task(informer.run()) for informer in self._watched.all()]
            for informer in self._watched.all():
                await informer.wait_synced()
            await elector.run(self._lead, context.stopping)
            for informer in informers:
                informer.cancel()

    async def _lead(self) -> None:
        for agent in self._watched.agents.list():
            self._agents.queue.add(agent.key)
        self._look_again()
        results = Consumer(
            self._context.bus,
            LLM_RESULTS_CONSUMER,
            LLMResult,
            self._inbox.handle,
            concurrency=LLM_RESULTS_CONSUMER.max_ack_pending,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tasks.run())
            group.create_task(self._agents.run())
            group.create_task(results.run(self._context.stopping))

    def _look_again(self) -> None:
        """What is on its way is not known any more: every Task finds out for itself."""
        self._dispatcher.forget_all()
        for task in self._watched.tasks.list():
            self._tasks.queue.add(task.key)


async def start(context: ServiceContext) -> None:
    await TaskController(context).run()


def main() -> None:
    """Entry point of the console script."""
    run_service(NAME, start)


if __name__ == "__main__":
    main()
