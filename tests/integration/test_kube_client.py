"""KubeClient against a real API server: what it makes of answers, good and bad."""

from __future__ import annotations

import asyncio
import base64
import json
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import (
    AlreadyExistsError,
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from kubechain_common.kube.paths import core_path, resource_path
from kubechain_common.kube.service_account import connect_by_service_account

pytestmark = pytest.mark.integration


class ControlPlane(Protocol):
    kubeconfig: Path


def build_task(namespace: str, name: str = "a", message: str | None = "hello") -> Task:
    spec = {"agentRef": {"name": "x"}, "userMessage": message}
    return Task.model_validate({"metadata": {"namespace": namespace, "name": name}, "spec": spec})


async def test_it_knows_how_long_ago_an_answer_was_good(kube: KubeClient, namespace: str) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await kube.create(build_task(namespace))
    assert kube.seconds_since_answer() < loop.time() - before
    asked = loop.time()
    with pytest.raises(NotFoundError):
        await kube.get(Task, namespace, "none")
    assert loop.time() - asked < kube.seconds_since_answer()


async def test_create_get_patch_delete(kube: KubeClient, namespace: str) -> None:
    created = await kube.create(build_task(namespace))
    assert created.uid
    patched = await kube.patch(Task, namespace, "a", {"spec": {"cancel": True}})
    assert patched.spec.cancel is True
    assert await kube.get(Task, namespace, "a") == patched
    await kube.delete(Task, namespace, "a")
    with pytest.raises(NotFoundError):
        await kube.get(Task, namespace, "a")


async def test_a_repeated_create_says_that_it_is_done(kube: KubeClient, namespace: str) -> None:
    await kube.create(build_task(namespace))
    with pytest.raises(AlreadyExistsError):
        await kube.create(build_task(namespace))


async def test_who_asks_without_a_pause_keeps_nobody_waiting(kube: KubeClient) -> None:
    """Twice as many loops as there are connections: they take turns, none waits while others go round and round."""
    rounds, answers = 20, [0] * 32

    async def ask_until_one_is_round(number: int) -> None:
        while max(answers) < rounds:
            await kube.request("GET", "/version")
            answers[number] += 1

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for number in range(len(answers)):
            group.create_task(ask_until_one_is_round(number))
    assert min(answers) >= rounds // 2, answers


async def test_a_status_is_replaced_and_nothing_else(kube: KubeClient, namespace: str) -> None:
    task = await kube.create(build_task(namespace))
    extras = {"labels": {"app": "x"}, "annotations": {"a": "b"}, "finalizers": ["example.com/kept"]}
    task = await kube.patch(Task, namespace, "a", {"metadata": extras})
    written = await kube.update_status(task, {"phase": "FinalAnswer", "output": "done", "turn": 2})
    written = await kube.update_status(written, {"phase": "FinalAnswer", "turn": 3})
    raw = await kube.request("GET", resource_path(Task, namespace, "a"))
    assert raw["status"] == {"phase": "FinalAnswer", "turn": 3}
    assert raw["spec"] == {"agentRef": {"name": "x"}, "userMessage": "hello"}
    kept = {"uid": task.uid, "generation": 1, **extras}
    assert {key: raw["metadata"][key] for key in kept} == kept
    await kube.patch(Task, namespace, "a", {"metadata": {"finalizers": None}})


async def test_a_write_on_a_stale_copy_is_refused_and_changes_nothing(kube: KubeClient, namespace: str) -> None:
    stale = await kube.create(build_task(namespace))
    await kube.update_status(stale, {"turn": 1})
    with pytest.raises(ConflictError) as caught:
        await kube.update_status(stale, {"turn": 2})
    assert caught.value.retryable
    assert (await kube.get(Task, namespace, "a")).status.turn == 1


async def test_a_write_to_what_is_gone_is_not_found(kube: KubeClient, namespace: str) -> None:
    task = await kube.create(build_task(namespace))
    await kube.delete(Task, namespace, "a")
    with pytest.raises(NotFoundError):
        await kube.update_status(task, {"turn": 1})


async def test_delete_is_content_with_gone_and_spares_a_namesake(kube: KubeClient, namespace: str) -> None:
    await kube.delete(Task, namespace, "never-was")
    await kube.create(build_task(namespace))
    await kube.delete(Task, namespace, "a", uid="00000000-0000-0000-0000-000000000000")
    task = await kube.get(Task, namespace, "a")
    await kube.delete(Task, namespace, "a", uid=task.uid)
    with pytest.raises(NotFoundError):
        await kube.get(Task, namespace, "a")


async def test_delete_spares_what_has_changed_since_it_was_read(kube: KubeClient, namespace: str) -> None:
    stale = await kube.create(build_task(namespace))
    task = await kube.patch(Task, namespace, "a", {"spec": {"ttlSecondsAfterFinished": 600}})
    with pytest.raises(ConflictError):
        await kube.delete(Task, namespace, "a", uid=stale.uid, version=stale.metadata.resource_version)
    assert await kube.get(Task, namespace, "a") == task
    await kube.delete(Task, namespace, "a", uid=task.uid, version=task.metadata.resource_version)
    with pytest.raises(NotFoundError):
        await kube.get(Task, namespace, "a")


async def test_a_refusal_carries_the_words_of_the_api_server(kube: KubeClient, namespace: str) -> None:
    with pytest.raises(InvalidError, match="set exactly one of userMessage and contextWindow") as caught:
        await kube.create(build_task(namespace, message=None))
    assert not caught.value.retryable


@pytest.mark.parametrize("megabytes", [2, 4])
async def test_an_object_over_any_limit_is_too_large(kube: KubeClient, namespace: str, megabytes: int) -> None:
    task = await kube.create(build_task(namespace))
    window = [{"role": "user", "content": "x" * 500_000} for _ in range(2 * megabytes)]
    with pytest.raises(TooLargeError):
        await kube.update_status(task, {"contextWindow": window})


async def test_a_kind_that_is_not_served_may_be_served_later(kube: KubeClient) -> None:
    with pytest.raises(UnavailableError) as caught:
        await kube.request("GET", "/apis/example.com/v1/nothings")
    assert caught.value.retryable


async def test_secrets_are_decoded(kube: KubeClient, namespace: str) -> None:
    body = {"metadata": {"name": "s"}, "data": {"k": base64.b64encode(b"v\xff").decode(), "empty": ""}}
    await kube.request("POST", core_path("secrets", namespace), body=body)
    assert await kube.get_secret(namespace, "s") == {"k": "v\ufffd", "empty": ""}
    with pytest.raises(InvalidError, match="empty"):
        await kube.get_secret(namespace, "")


async def test_an_api_server_that_is_away_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],"
        " clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: u, user: {token: t}}]}",
        encoding="utf-8",
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with KubeClient.connect("kubechain-tests") as client:
        with pytest.raises(UnavailableError, match="cannot reach the API server") as caught:
            await client.request("GET", "/version")
    assert caught.value.retryable


async def test_no_configuration_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="Set KUBECONFIG"):
        async with KubeClient.connect("kubechain-tests"):
            pass


@pytest.fixture
async def service_account_token(kube: KubeClient) -> str:
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    answer = await kube.request("POST", path, body={"spec": {"expirationSeconds": 600}})
    return str(answer["status"]["token"])


async def test_refused_credentials_are_read_again(
    kube: KubeClient, service_account_token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("not-a-token", encoding="utf-8")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],"
        f" clusters: [{{name: c, cluster: {{server: '{kube.host}', insecure-skip-tls-verify: true}}}}],"
        f" users: [{{name: u, user: {{tokenFile: '{token}'}}}}]}}",
        encoding="utf-8",
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with KubeClient.connect("kubechain-tests") as client:
        with pytest.raises(UnauthorizedError) as caught:
            await client.request("GET", "/apis")
        assert caught.value.retryable
        token.write_text(service_account_token, encoding="utf-8")
        assert await client.request("GET", "/apis")


async def test_in_a_cluster_the_service_account_is_used(
    kube: KubeClient,
    control_plane: ControlPlane,
    service_account_token: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kubeconfig = json.loads(control_plane.kubeconfig.read_text(encoding="utf-8"))
    authority = base64.b64decode(kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"])
    (tmp_path / "token").write_text(service_account_token, encoding="utf-8")
    (tmp_path / "ca.crt").write_bytes(authority)
    in_a_pod = partial(connect_by_service_account, folder=tmp_path)
    monkeypatch.setattr("kubechain_common.kube.access.connect_by_service_account", in_a_pod)
    address = urlsplit(kube.host)
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", address.hostname or "")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
    async with KubeClient.connect("kubechain-tests") as client:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = await client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=review)
        assert answer["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
        with pytest.raises(ForbiddenError) as caught:
            await client.get_secret("default", "s")
    assert not caught.value.retryable
