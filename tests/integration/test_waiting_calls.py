"""Which calls human-bridge follows, against a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_human_bridge.waiting_calls import WaitingCalls

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]


@asynccontextmanager
async def following(
    kube: KubeClient, namespace: str
) -> AsyncIterator[tuple[WaitingCalls, list[tuple[str, str, bool]]]]:
    """What is followed, and what the handlers are told: the kind of change, the call, whether it waits."""
    calls = WaitingCalls(kube, namespace)
    told: list[tuple[str, str, bool]] = []
    calls.add_handler(lambda change: told.append((change.kind, change.obj.name, change.obj.awaits_human)))
    async with asyncio.TaskGroup() as group:
        run = group.create_task(calls.run())
        async with asyncio.timeout(10):
            await calls.informer.wait_synced()
        yield calls, told
        run.cancel()


async def create(kube: KubeClient, namespace: str, name: str, **status: Any) -> TaskRunToolCall:
    spec = {
        "toolCallId": "call_1",
        "taskRunRef": {"name": "hello"},
        "toolRef": {"name": "fetch__fetch"},
        "toolType": "MCP",
        "arguments": "{}",
    }
    wire = {"metadata": {"namespace": namespace, "name": name}, "spec": spec}
    call = await kube.create(TaskRunToolCall.model_validate(wire))
    return await kube.update_status(call, status) if status else call


async def test_a_call_is_followed_from_when_it_asks_somebody_to_its_deletion(
    kube: KubeClient, namespace: str, kubectl: object, eventually: Eventually
) -> None:
    await create(kube, namespace, "asks-nobody", phase="Succeeded", status="Succeeded", result="x")
    asking = {"phase": "Pending", "status": "AwaitingHumanApproval", "externalCallID": "ec-1"}
    ended = {"phase": "Succeeded", "status": "Succeeded", "externalCallID": "ec-1", "result": "x"}
    async with following(kube, namespace) as (calls, told):
        call = await create(kube, namespace, "asks")
        await kube.update_status(call, asking)
        await eventually(lambda: calls.count() == 1)
        call = await kube.patch(TaskRunToolCall, namespace, "asks", {"spec": {"decision": {"approved": True}}})
        await kube.update_status(call, ended)
        await eventually(lambda: len(told) == 3)
        async with following(kube, namespace) as (_, listed):
            assert listed == [("added", "asks", False)], "one that was decided is still there for who begins now"
        kept = calls.informer.get(namespace, "asks")
        assert kept is not None
        assert kept.spec.decision is not None
        await kube.delete(TaskRunToolCall, namespace, "asks")
        await eventually(lambda: len(told) == 4)
    changes = [("added", True), ("modified", False), ("modified", False), ("deleted", False)]
    assert told == [(kind, "asks", waits) for kind, waits in changes]
