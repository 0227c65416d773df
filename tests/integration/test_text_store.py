"""Texts of a Task in ConfigMaps, on the real API server."""

from __future__ import annotations

import pytest

from kubechain_common.api.stored_text import StoredText
from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import AlreadyExistsError, InvalidError
from kubechain_common.kube.paths import core_path
from kubechain_common.kube.text_store import store_text

pytestmark = pytest.mark.integration


async def create_task(kube: KubeClient, namespace: str, name: str = "hello") -> Task:
    spec = {"agentRef": {"name": "nobody"}, "userMessage": "hi"}
    return await kube.create(Task.model_validate({"metadata": {"name": name, "namespace": namespace}, "spec": spec}))


async def test_a_text_is_stored_once_belongs_to_its_task_and_never_changes(kube: KubeClient, namespace: str) -> None:
    task = await create_task(kube, namespace)
    for _ in range(2):
        await store_text(
            kube, namespace, task.build_owner_reference(), StoredText("hello-text-1", "content", "é" * 10_000)
        )
    stored = await kube.request("GET", core_path("configmaps", namespace, "hello-text-1"))
    assert stored["data"] == {"content": "é" * 10_000}
    assert stored["immutable"] is True
    assert [owner["uid"] for owner in stored["metadata"]["ownerReferences"]] == [task.uid]


async def test_a_name_that_somebody_else_took_is_refused(kube: KubeClient, namespace: str) -> None:
    task, other = await create_task(kube, namespace), await create_task(kube, namespace, "other")
    await store_text(kube, namespace, other.build_owner_reference(), StoredText("hello-text-1", "content", "text"))
    with pytest.raises(AlreadyExistsError, match='ConfigMap "hello-text-1" exists already'):
        await store_text(kube, namespace, task.build_owner_reference(), StoredText("hello-text-1", "content", "text"))
    with pytest.raises(AlreadyExistsError, match='ConfigMap "hello-text-1" exists already'):
        await store_text(
            kube, namespace, other.build_owner_reference(), StoredText("hello-text-1", "content", "another text")
        )


async def test_a_text_that_does_not_fit_is_refused_for_good(kube: KubeClient, namespace: str) -> None:
    task = await create_task(kube, namespace)
    with pytest.raises(InvalidError):
        await store_text(
            kube, namespace, task.build_owner_reference(), StoredText("hello-text-1", "content", "é" * 1_000_000)
        )
