"""The calls that concern people, known by watching; the page, the answer checks and the webhooks read them here.

Few calls of a cluster ask people, and only these are followed: the ones with an external id, which a call gets in the
write that makes it wait, or that ends it with an answer, and keeps for ever. A waiting call is kept with what a person
wants to know: without labels, owners and trace, and with arguments of at most ``MAX_ARGUMENTS``; who shows more reads
the call itself. One that has been answered, or has ended without, is kept without its long texts, which are dropped
before it is even parsed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import ObjectMeta
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.taskruntoolcall import (
    HUMAN_ASKED,
)
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Change, Informer
from kubechain_common.messages import ObjectRef

IDLE_SECONDS = 1.0
"""Seconds after which an unchanged call is packed, so that one that waits costs little memory."""

MAX_ARGUMENTS = 4096
"""Characters of a waiting call's arguments that are kept; what is cut ends with an ellipsis."""

_CONCERNS_PEOPLE = "status.externalCallID!="
_WAITING = "waiting"
_EXTERNAL = "external"
_ALL = "all"
_HUMAN_STATES = ("AwaitingHumanApproval", "AwaitingHumanInput")
_LONGEST_ANSWER = 1024


class WaitingCalls:
    """An informer of calls that is asked for the waiting ones."""

    def __init__(self, kube: KubeClient, namespace: str = "") -> None:
        self.informer = Informer(
            kube,
            TaskRunToolCall,
            namespace=namespace,
            field_selector=_CONCERNS_PEOPLE,
            indexers={_WAITING: _index_waiting, _EXTERNAL: _index_external_id},
            transform=thin_out,
            strip=strip_settled,
            pack_after=IDLE_SECONDS,
        )

    def waiting(self) -> Iterator[TaskRunToolCall]:
        """Every call that a person may answer now, one after another."""
        # What is read later may have been answered meanwhile.
        return (call for call in self.informer.each_by_index(_WAITING, _ALL) if call.awaits_human)

    def count(self) -> int:
        """How many calls wait."""
        return self.informer.count_by_index(_WAITING, _ALL)

    def find(self, ref: ObjectRef) -> TaskRunToolCall | None:
        """The very call of ``ref``, if it is known to wait."""
        call = self.informer.get(ref.namespace, ref.name)
        return call if call is not None and call.uid == ref.uid and call.awaits_human else None

    def find_external(self, namespace: str, external_call_id: str) -> TaskRunToolCall | None:
        """The waiting call that is known outside by this id."""
        return next(iter(self.informer.by_index(_EXTERNAL, f"{namespace}/{external_call_id}")), None)

    def add_handler(self, handler: Callable[[Change[TaskRunToolCall]], None]) -> None:
        """Calls ``handler`` for every change; ``awaits_human`` of old and new tells what it means."""
        self.informer.add_handler(handler)

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        await self.informer.run()


def was_asked(call: TaskRunToolCall) -> bool:
    """Whether the request is known to have reached the channel."""
    return any(c.type == HUMAN_ASKED and c.status == "True" for c in call.status.conditions)


def strip_settled(raw: dict[str, Any]) -> None:
    """Takes the large texts out of a call that does not wait, as ``thin_out`` would."""
    spec, status = raw.get("spec"), raw.get("status")
    if not isinstance(spec, dict) or not isinstance(status, dict):
        return
    if status.get("status") not in _HUMAN_STATES:
        spec["arguments"] = ""
        status.pop("result", None)
        status.pop("error", None)


def thin_out(call: TaskRunToolCall) -> TaskRunToolCall:
    """The call as it is kept."""
    return _keep_question(call) if call.awaits_human else _keep_answer(call)


def _keep_question(call: TaskRunToolCall) -> TaskRunToolCall:
    arguments = shorten(call.spec.arguments, MAX_ARGUMENTS)
    spec = call.spec.model_copy(update={"arguments": arguments, "span_context": None, "delegation": None})
    return call.model_copy(update={"metadata": _name(call), "spec": spec})


def _keep_answer(call: TaskRunToolCall) -> TaskRunToolCall:
    decision, response = call.spec.decision, call.spec.response
    if decision is not None:
        comment = shorten(decision.comment, _LONGEST_ANSWER) if decision.comment else decision.comment
        decision = decision.model_copy(update={"comment": comment, "arguments": None})
    if response is not None:
        response = response.model_copy(update={"message": shorten(response.message, _LONGEST_ANSWER)})
    dropped = {"arguments": "", "span_context": None, "delegation": None}
    spec = call.spec.model_copy(update={**dropped, "decision": decision, "response": response})
    detail = shorten(call.status.status_detail, _LONGEST_ANSWER)
    status = call.status.model_copy(update={"result": "", "error": "", "status_detail": detail})
    return call.model_copy(update={"metadata": _name(call), "spec": spec, "status": status})


def _name(call: TaskRunToolCall) -> ObjectMeta:
    return _NO_METADATA.model_copy(
        update={
            "name": call.name,
            "namespace": sys.intern(call.namespace),
            "uid": call.uid,
            "resource_version": call.metadata.resource_version,
            "creation_timestamp": call.metadata.creation_timestamp,
        }
    )


_NO_METADATA = ObjectMeta()


def _index_waiting(call: TaskRunToolCall) -> list[str]:
    return [_ALL] if call.awaits_human else []


def _index_external_id(call: TaskRunToolCall) -> list[str]:
    return [f"{call.namespace}/{call.status.external_call_id}"] if call.awaits_human else []
