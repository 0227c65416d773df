"""The requests to people: published once, taken back when they are of no use any more, and what is reported of them."""

from __future__ import annotations

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Informer, Key
from kubechain_common.messages.human import HumanRequest, HumanResult
from kubechain_common.messages.topology import ANY, human_request_subject, human_result_subject
from kubechain_common.messaging.dispatcher import Dispatcher
from kubechain_common.runtime.inbox import Inbox, Parked
from kubechain_common.telemetry.tracing import span


class HumanRequests:
    """The requests to people, as far as this process knows of them while it leads."""

    def __init__(self, dispatcher: Dispatcher, reports: Inbox[HumanResult]) -> None:
        self._dispatcher = dispatcher
        self._reports = reports

    def first_report(self, call_uid: str) -> Parked[HumanResult] | None:
        """The oldest report of asking about this call, or None."""
        return self._reports.first(call_uid)

    def settle(self, call_uid: str, report: Parked[HumanResult]) -> bool:
        """Settles the report, which is in the call or of no use. True when another one waits."""
        if report.message.outcome != "Retrying":
            self._dispatcher.forget(call_uid)
        return self._reports.settle(call_uid, report)

    async def settle_orphans_of(
        self, key: Key, known: TaskRunToolCall | None, calls: Informer[TaskRunToolCall], kube: KubeClient
    ) -> None:
        """Settle reports about another call of this name than the live one. Raises KubeError."""
        await self._reports.settle_orphans_of(key, known, calls, kube)

    async def publish(self, call: TaskRunToolCall, request: HumanRequest, *, is_new: bool) -> None:
        """Publish the request, unless it or its report is there. ``is_new``: the call has begun to wait just now."""
        subject = human_request_subject(request.channel.uid, call.namespace, call.uid)
        if self._dispatcher.subject_of(call.uid) == subject:
            return
        attributes = {"kubechain.tool_call.name": call.name, "kubechain.contact_channel.name": request.channel.name}
        with span(f"ask via {request.channel.name}", call.spec.span_context, attributes=attributes) as asking:
            await self._dispatcher.publish(
                call.uid,
                request,
                subject=subject,
                result_subject=human_result_subject(call.namespace, call.uid),
                trace=asking.context,
                new_since=request.requested_at if is_new else None,
                anywhere=human_request_subject(ANY, call.namespace, call.uid),
            )

    async def withdraw(self, call: TaskRunToolCall) -> None:
        """Takes the request back: nobody is to be asked about this call any more. Raises MessagingError."""
        await self._dispatcher.withdraw(call.uid, human_request_subject(ANY, call.namespace, call.uid))

    def forget(self, call_uid: str) -> None:
        """Forgets the request: the call has ended, or its person has been asked."""
        self._dispatcher.forget(call_uid)

    def forget_all(self) -> None:
        """Forgets all requests, which may not be where they were published."""
        self._dispatcher.forget_all()
