"""The Job that makes what is secret, under its own rights on a real API server, and NATS with what it made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kubechain_common.kube.client import KubeClient, decode_secret
from kubechain_common.kube.errors import ForbiddenError
from kubechain_common.messages.nats_config import build_users_config
from kubechain_common.messages.permissions import USERS
from kubechain_common.messaging import Bus
from kubechain_common.messaging.access import BusAccess
from kubechain_common.policies.rbac import build_service_roles
from kubechain_common.policies.rbac.rights import BOOTSTRAP, MADE_SECRETS
from kubechain_common.runtime.bootstrap import bootstrap, run, server_names
from kubechain_common.runtime.certificates import build_server_certificate
from kubechain_common.testing.nats_server import run_nats_server

pytestmark = pytest.mark.integration

Kubectl = Callable[..., Any]


@pytest.fixture
async def job(
    kube: KubeClient, kubectl: Kubectl, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[KubeClient]:
    """The API server as the Job sees it."""
    for objects in build_service_roles(BOOTSTRAP, namespace).values():
        for obj in objects:
            done = kubectl("apply", "-f", "-", manifest=obj)
            assert done.returncode == 0, done.stderr
    token = kubectl("create", "token", BOOTSTRAP, "-n", namespace)
    assert token.returncode == 0, token.stderr
    config = json.loads(kubectl("config", "view", "-o", "json", "--raw").stdout)
    config["users"][0]["user"] = {"token": token.stdout.strip()}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("KUBECHAIN_NAMESPACE", namespace)
    async with KubeClient.connect("kubechain-bootstrap") as client:
        yield client


async def read_all(kube: KubeClient, namespace: str) -> dict[str, dict[str, str]]:
    found = await kube.request("GET", f"/api/v1/namespaces/{namespace}/secrets")
    return {secret["metadata"]["name"]: decode_secret(secret) for secret in found["items"]}


async def test_it_makes_what_is_missing_and_keeps_what_exists(
    kube: KubeClient, job: KubeClient, namespace: str
) -> None:
    assert await run(tls=True) == 0
    made = await read_all(kube, namespace)
    assert set(made) == set(MADE_SECRETS)
    assert await run(tls=True) == 0
    assert await read_all(kube, namespace) == made
    await kube.request("DELETE", f"/api/v1/namespaces/{namespace}/secrets/nats-mcp-host")
    await bootstrap(job, namespace, tls=True)
    later = await read_all(kube, namespace)
    assert {name for name in made if later[name] != made[name]} == {"nats-mcp-host", "nats-users"}


async def test_two_at_once_agree(kube: KubeClient, job: KubeClient, namespace: str) -> None:
    await asyncio.gather(*(bootstrap(job, namespace, tls=True) for _ in range(3)))
    made = await read_all(kube, namespace)
    assert all(f'"{made[f"nats-{user}"]["password"]}"' in made["nats-users"]["passwords.conf"] for user in USERS)


async def test_it_sees_no_other_secret(kube: KubeClient, job: KubeClient, namespace: str) -> None:
    body = {"metadata": {"name": "somebodys"}, "stringData": {"key": "value"}}
    await kube.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body=body)
    for name in ("somebodys", ""):
        with pytest.raises(ForbiddenError):
            await job.request("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")


async def test_a_refusal_is_told_by_the_exit_code(
    kubectl: Kubectl, job: KubeClient, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl("delete", "rolebinding", "--all", "-n", namespace)
    assert await run(tls=False) == 1
    assert "secrets can not be made" in capsys.readouterr().out


async def test_a_service_signs_in_over_tls_and_nobody_else_is_taken_for_nats(
    kube: KubeClient, job: KubeClient, namespace: str, tmp_path: Path
) -> None:
    await bootstrap(job, namespace, tls=True)
    made = await read_all(kube, namespace)
    for name, key in (("nats-tls", "tls.crt"), ("nats-tls", "tls.key"), ("nats-ca", "ca.crt")):
        (tmp_path / key).write_text(made[name][key])
    (tmp_path / "password").write_text(made["nats-llm-gateway"]["password"])
    tls = f'tls {{ cert_file: "{tmp_path}/tls.crt", key_file: "{tmp_path}/tls.key", handshake_first: true }}\n'
    config = tls + build_users_config(made["nats-users"]["passwords.conf"])
    access = BusAccess("llm-gateway", tmp_path / "password", tmp_path / "ca.crt")
    async with run_nats_server(tmp_path / "nats", config) as server:
        url = f"tls://localhost:{server.port}"
        async with Bus.connect(url, "llm-gateway", access) as bus:
            assert await bus.shared.write("health.1", b"{}", 0)
        other = build_server_certificate(server_names(namespace))
        (tmp_path / "ca.crt").write_text(other["ca.crt"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), Bus.connect(url, "llm-gateway", access):
                pytest.fail("the server was taken though another authority vouches for it")


async def test_no_password_is_sent_to_a_server_without_tls(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    (tmp_path / "ca.crt").write_text(build_server_certificate(["localhost"])["ca.crt"])
    said = bytearray()
    attempts = asyncio.Semaphore(0)

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.0","max_payload":1048576,"auth_required":true}\r\n')
        said.extend(await reader.read(4096))
        writer.close()
        attempts.release()

    async def connect() -> None:
        async with Bus.connect(f"nats://127.0.0.1:{port}", "llm-gateway", access):
            pytest.fail("that was no NATS")

    listening = await asyncio.start_server(pretend, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    access = BusAccess("llm-gateway", tmp_path / "password", tmp_path / "ca.crt")
    async with listening, asyncio.timeout(20), asyncio.TaskGroup() as group:
        connecting = group.create_task(connect())
        for _ in range(3):
            await attempts.acquire()
        connecting.cancel()
    assert said, "it was spoken to"
    assert b"CONNECT" not in said
    assert b"secret" not in said
