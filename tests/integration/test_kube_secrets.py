"""SecretWatcher against a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kubechain_common.kube.client import MERGE_PATCH, KubeClient
from kubechain_common.kube.paths import core_path
from kubechain_common.kube.secrets import SecretWatcher

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]


@asynccontextmanager
async def running(watcher: SecretWatcher) -> AsyncIterator[SecretWatcher]:
    async with asyncio.TaskGroup() as group:
        run = group.create_task(watcher.run())
        yield watcher
        run.cancel()


async def write(kube: KubeClient, namespace: str, name: str, value: str, *, new: bool = False) -> None:
    body: dict[str, Any] = {"metadata": {"name": name}, "stringData": {"key": value}}
    if new:
        await kube.request("POST", core_path("secrets", namespace), body=body)
    else:
        await kube.request("PATCH", core_path("secrets", namespace, name), body=body, content_type=MERGE_PATCH)


async def test_creation_rotation_and_deletion_are_told(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    watcher = SecretWatcher(kube)
    calls: list[tuple[str, str]] = []
    watcher.add_handler(lambda ns, name: calls.append((ns, name)))
    async with running(watcher):
        watcher.set_references("llm-1", {(namespace, "s")})
        assert not watcher.is_known(namespace, "s")
        await eventually(lambda: watcher.is_known(namespace, "s"))
        assert watcher.get(namespace, "s") is None
        await write(kube, namespace, "s", "one", new=True)
        await eventually(lambda: watcher.get(namespace, "s") == {"key": "one"})
        await write(kube, namespace, "s", "two")
        await eventually(lambda: watcher.get(namespace, "s") == {"key": "two"})
        await kube.request("DELETE", core_path("secrets", namespace, "s"))
        await eventually(lambda: watcher.get(namespace, "s") is None)
        await write(kube, namespace, "s", "three", new=True)
        await eventually(lambda: watcher.get(namespace, "s") == {"key": "three"})
    assert calls == [(namespace, "s")] * 5


async def test_a_change_that_is_not_one_of_data_is_not_told(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    await write(kube, namespace, "s", "one", new=True)
    watcher = SecretWatcher(kube)
    calls: list[str] = []
    watcher.add_handler(lambda _, name: calls.append(name))
    async with running(watcher):
        watcher.set_references("llm-1", {(namespace, "s")})
        await eventually(lambda: watcher.get(namespace, "s") == {"key": "one"})
        label = {"metadata": {"labels": {"a": "b"}}}
        await kube.request("PATCH", core_path("secrets", namespace, "s"), body=label, content_type=MERGE_PATCH)
        await write(kube, namespace, "s", "two")
        await eventually(lambda: watcher.get(namespace, "s") == {"key": "two"})
    assert calls == ["s", "s"]


async def test_a_secret_is_watched_as_long_as_somebody_refers_to_it(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    await write(kube, namespace, "s", "one", new=True)
    watcher = SecretWatcher(kube)
    async with running(watcher):
        watcher.set_references("llm-1", {(namespace, "s")})
        watcher.set_references("llm-2", {(namespace, "s")})
        await eventually(lambda: watcher.is_known(namespace, "s"))
        watcher.set_references("llm-1", set())
        await write(kube, namespace, "s", "two")
        await eventually(lambda: watcher.get(namespace, "s") == {"key": "two"})
        watcher.set_references("llm-2", set())
        await eventually(lambda: not watcher.is_known(namespace, "s"))
        watcher.set_references("llm-3", {(namespace, "s")})
        await eventually(lambda: watcher.get(namespace, "s") == {"key": "two"})


async def test_read_knows_missing_from_not_yet_known(kube: KubeClient, namespace: str) -> None:
    watcher = SecretWatcher(kube)
    await write(kube, namespace, "s", "one", new=True)
    assert await watcher.read(namespace, "s") == {"key": "one"}
    assert await watcher.read(namespace, "missing") is None
    assert await watcher.read(namespace, "../configmaps/x") is None


async def test_a_name_that_no_secret_can_have_is_missing_for_good(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    await write(kube, namespace, "s", "one", new=True)
    watcher = SecretWatcher(kube)
    async with running(watcher):
        watcher.set_references("llm-1", {(namespace, "s,metadata.namespace!=x"), (namespace, ""), (namespace, "s")})
        await eventually(lambda: watcher.is_known(namespace, "s"))
        assert watcher.get(namespace, "s,metadata.namespace!=x") is None


async def test_values_do_not_show_in_repr(kube: KubeClient, namespace: str, eventually: Eventually) -> None:
    await write(kube, namespace, "s", "top-secret-value", new=True)
    watcher = SecretWatcher(kube)
    async with running(watcher):
        watcher.set_references("llm-1", {(namespace, "s")})
        await eventually(lambda: watcher.is_known(namespace, "s"))
        assert "top-secret-value" not in repr(vars(watcher))
