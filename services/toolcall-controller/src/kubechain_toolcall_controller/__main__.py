"""The toolcall-controller process: a controller, a consumer of the tools' results and one of the reports that people
were asked, run by whoever holds the Lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.controller import Controller
from kubechain_common.kube.informer import Change, Key
from kubechain_common.messages import ObjectRef, ToolResult
from kubechain_common.messages.human import HumanResult
from kubechain_common.messages.topology import (
    HUMAN_REQUESTS,
    HUMAN_RESULTS,
    HUMAN_RESULTS_CONSUMER,
    TOOL_REQUESTS,
    TOOL_RESULTS,
    TOOL_RESULTS_CONSUMER,
)
from kubechain_common.messaging.consumer import Consumer, Poison
from kubechain_common.messaging.dispatcher import Dispatcher
from kubechain_common.runtime.inbox import Inbox
from kubechain_common.runtime.leadership import Leadership
from kubechain_common.runtime.service import ServiceContext, run_service
from kubechain_toolcall_controller.core.unreadable import build_unreadable_report, build_unreadable_result
from kubechain_toolcall_controller.human_requests import HumanRequests
from kubechain_toolcall_controller.toolcall_reconciler import ToolCallReconciler
from kubechain_toolcall_controller.watched import Watched

NAME = "toolcall-controller"


class ToolCallTerm:
    """What works while this process leads."""

    def __init__(self, context: ServiceContext, watched: Watched, leads: Callable[[], bool]) -> None:
        self._context = context
        self._watched = watched
        self._inbox: Inbox[ToolResult] = Inbox(lambda result: result.call, self._enqueue_owner)
        self._reports: Inbox[HumanResult] = Inbox(lambda report: report.call, self._enqueue_owner)
        self.reconciler = ToolCallReconciler(
            context.kube,
            watched,
            Dispatcher(context.bus, TOOL_REQUESTS, TOOL_RESULTS, leads),
            context.bus.started_calls,
            self._inbox,
            HumanRequests(Dispatcher(context.bus, HUMAN_REQUESTS, HUMAN_RESULTS, leads), self._reports),
            context.recorder.for_component("taskruntoolcall-controller"),
        )
        self.calls = Controller("taskruntoolcall", self.reconciler.reconcile, workers=32)

    async def run(self) -> None:
        """Looks at every unfinished call once, then at whatever changes."""
        self.look_again()
        results = Consumer(
            self._context.bus,
            TOOL_RESULTS_CONSUMER,
            ToolResult,
            self._inbox.handle,
            concurrency=TOOL_RESULTS_CONSUMER.max_ack_pending,
            on_poison=self._handle_poison,
            exclusive=True,
        )
        reports = Consumer(
            self._context.bus,
            HUMAN_RESULTS_CONSUMER,
            HumanResult,
            self._reports.handle,
            concurrency=HUMAN_RESULTS_CONSUMER.max_ack_pending,
            on_poison=self._handle_poisoned_report,
            exclusive=True,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self.calls.run())
            group.create_task(results.run(self._context.stopping))
            group.create_task(reports.run(self._context.stopping))

    async def _handle_poison(self, poison: Poison) -> None:
        """Fails the call of an unreadable result; the subject says whose result it is."""
        result = build_unreadable_result(poison.subject, poison.reason)
        if result is not None:
            await self._inbox.take(result)

    async def _handle_poisoned_report(self, poison: Poison) -> None:
        report = build_unreadable_report(poison.subject, poison.reason)
        if report is not None:
            await self._reports.take(report)

    def _enqueue_owner(self, ref: ObjectRef) -> Key | None:
        key = self._watched.key_of_call(ref)
        if key is not None:
            self.calls.queue.add(key)
        return key

    def look_again(self) -> None:
        """Has every unfinished call find out what is on its way, because that is not known any more."""
        self.reconciler.look_again()
        for call in self._watched.calls.each():
            if not call.finished:
                self.calls.queue.add(call.key)


async def start(context: ServiceContext) -> None:
    """Runs until the process is asked to stop."""
    watched = Watched.build(context.kube, context.settings.watch_namespace)
    leadership = Leadership(
        context, NAME, watched.all(), lambda: ToolCallTerm(context, watched, leads=lambda: leadership.is_certain())
    )

    def handle_deleted(change: Change[TaskRunToolCall]) -> None:
        if change.kind == "deleted":
            leadership.tell(lambda term: term.reconciler.handle_deleted(change.obj))

    watched.wake_calls(lambda key: leadership.tell(lambda term: term.calls.queue.add(key)))
    watched.calls.add_handler(handle_deleted)
    await leadership.run()


def main() -> None:
    """Entry point of the console script."""
    run_service(NAME, start, takes_from=[TOOL_RESULTS, HUMAN_RESULTS])


if __name__ == "__main__":
    main()
