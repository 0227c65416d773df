"""The toolcall-controller process: one controller and one consumer of results, run by whoever holds the Lease."""

from __future__ import annotations

import asyncio

from kubechain_common.kube.controller import Controller
from kubechain_common.kube.lease import LeaderElector
from kubechain_common.messaging.consumer import Consumer
from kubechain_common.runtime.service import ServiceContext, run_service

from kubechain_common.messages import ToolResult
from kubechain_common.messages.topology import TOOL_REQUESTS, TOOL_RESULTS, TOOL_RESULTS_CONSUMER
from kubechain_common.messaging.dispatcher import Dispatcher
from kubechain_common.runtime.inbox import Inbox
from kubechain_toolcall_controller.toolcall_reconciler import ToolCallReconciler
from kubechain_toolcall_controller.watched import Watched

NAME = "toolcall-controller"


class ToolCallController:
    """The parts of the process, wired."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._watched = Watched.build(context.kube, context.settings.watch_namespace)
        self._inbox: Inbox[ToolResult] = Inbox(lambda result: result.call, lambda key: self._calls.queue.add(key))
        self._reconciler = ToolCallReconciler(
            context.kube,
            self._watched,
            Dispatcher(context.bus, TOOL_REQUESTS, TOOL_RESULTS),
            self._inbox,
            context.recorder.for_component("taskruntoolcall-controller"),
        )
        self._calls = Controller("taskruntoolcall", self._reconciler.reconcile, workers=32)
        self._watched.wake_calls(self._calls.queue.add)
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
        self._look_again()
        results = Consumer(
            self._context.bus,
            TOOL_RESULTS_CONSUMER,
            ToolResult,
            self._inbox.handle,
            concurrency=TOOL_RESULTS_CONSUMER.max_ack_pending,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._calls.run())
            group.create_task(results.run(self._context.stopping))

    def _look_again(self) -> None:
        """What is on its way is not known any more: every unfinished call finds out for itself."""
        self._reconciler.look_again()
        for call in self._watched.calls.list():
            if not call.finished:
                self._calls.queue.add(call.key)


async def start(context: ServiceContext) -> None:
    await ToolCallController(context).run()


def main() -> None:
    """Entry point of the console script."""
    run_service(NAME, start)


if __name__ == "__main__":
    main()
