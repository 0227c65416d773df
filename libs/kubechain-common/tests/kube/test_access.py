"""Which files lead to which connection, and that what is not plain is left to the kubernetes package."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubechain_common.kube.access import ClusterAccess
from kubechain_common.kube.connection import Connection
from kubechain_common.kube.errors import ConfigurationError
from kubechain_common.kube.kubeconfig import connect_by_kubeconfig
from kubechain_common.kube.service_account import connect_by_service_account

SERVER = "https://cluster.example:6443"


@dataclass(frozen=True)
class Pair:
    certificate: bytes
    key: bytes


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A certificate that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    return Pair(certificate.public_bytes(pem), key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password))


def build_config(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "one", "user": "me", "namespace": "default"}}],
        "clusters": [{"name": "one", "cluster": {"server": SERVER + "/"} | (cluster or {})}],
        "users": [{"name": "me", "user": {"token": "abc"} if user is None else user}],
    }


def write(folder: Path, config: object, dump: Callable[[Any], str] = json.dumps) -> Path:
    path = folder / "kubeconfig"
    path.write_text(dump(config))
    return path


def connect(path: Path) -> Connection | None:
    return connect_by_kubeconfig(str(path))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump])
def test_a_token_in_json_or_yaml(tmp_path: Path, dump: Callable[[Any], str]) -> None:
    connection = connect(write(tmp_path, build_config(), dump))
    assert connection is not None
    assert (connection.host, connection.authorization, connection.renew) == (SERVER, "Bearer abc", None)
    assert connection.ssl_context.verify_mode == ssl.CERT_REQUIRED
    assert connection.ssl_context.check_hostname


def test_certificates_as_data_and_nothing_is_left_on_the_disk(
    tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    user = {"client-certificate-data": encoded(pair.certificate), "client-key-data": encoded(pair.key)}
    cluster = {"certificate-authority-data": encoded(pair.certificate), "tls-server-name": "other"}
    connection = connect(write(tmp_path, build_config(cluster, user)))
    assert connection is not None
    assert connection.authorization == ""
    assert connection.server_hostname == "other"
    assert [ca["subject"] for ca in connection.ssl_context.get_ca_certs()] == [((("commonName", "somebody"),),)]
    assert list(temporary.iterdir()) == []


def test_paths_begin_where_the_file_is(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "ca.crt").write_bytes(pair.certificate)
    (tmp_path / "client.crt").write_bytes(pair.certificate)
    (tmp_path / "client.key").write_bytes(pair.key)
    user = {"client-certificate": "client.crt", "client-key": str(tmp_path / "client.key")}
    connection = connect(write(tmp_path, build_config({"certificate-authority": "ca.crt"}, user)))
    assert connection is not None
    assert len(connection.ssl_context.get_ca_certs()) == 1


def test_no_verification_where_none_is_wanted(tmp_path: Path) -> None:
    connection = connect(write(tmp_path, build_config({"insecure-skip-tls-verify": True})))
    assert connection is not None
    assert connection.ssl_context.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        ({}, {"exec": {"command": "aws"}}),
        ({}, {"auth-provider": {"name": "oidc"}}),
        ({}, {"username": "me", "password": "secret"}),
        ({}, {"token": "abc", "tokenFile": "token"}),
        ({}, {"token": 5}),
        ({}, {"tokenFile": "missing"}),
        ({}, {"client-certificate-data": "not base64"}),
        ({}, {"client-certificate-data": encoded(b"not a certificate")}),
        ({"certificate-authority-data": encoded(b"not a certificate")}, None),
        ({"certificate-authority": "missing"}, None),
        ({"server": "http://cluster.example"}, None),
        ({"something-new": "x"}, None),
    ],
)
def test_what_is_not_plain_is_left_alone(tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any] | None) -> None:
    assert connect(write(tmp_path, build_config(cluster, user))) is None


@pytest.mark.parametrize("text", ["", "[]", "{", "a: b: c", '{"contexts": 5}', '{"contexts": [5], "clusters": {}}'])
def test_what_is_no_kubeconfig_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    assert connect(path) is None
    assert connect(tmp_path / "none") is None


@pytest.mark.parametrize("kind", ["contexts", "clusters", "users"])
def test_a_name_that_is_there_twice_or_never_is_left_alone(tmp_path: Path, kind: str) -> None:
    twice, never = build_config(), build_config()
    twice[kind] = twice[kind] * 2
    never[kind] = []
    assert connect(write(tmp_path, twice)) is None
    assert connect(write(tmp_path, never)) is None


def test_a_token_file_is_read_again_when_the_token_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    monkeypatch.setenv("KUBECONFIG", str(write(tmp_path, build_config({}, {"tokenFile": "token"}))))

    async def scenario() -> None:
        access = await ClusterAccess.load()
        assert await access.auth_headers() == {"Authorization": "Bearer first"}
        token.write_text("second\n")
        assert await access.auth_headers() == {"Authorization": "Bearer first"}
        access.expire()
        assert await access.auth_headers() == {"Authorization": "Bearer second"}
        token.unlink()
        access.expire()
        with pytest.raises(ConfigurationError, match="Cannot refresh") as caught:
            await access.auth_headers()
        assert caught.value.retryable

    asyncio.run(scenario())


def test_a_password_comes_by_way_of_the_kubernetes_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write(tmp_path, build_config({}, {"username": "me", "password": "pw"}))))

    async def scenario() -> None:
        access = await ClusterAccess.load()
        assert access.host == SERVER
        assert await access.auth_headers() == {"Authorization": "Basic " + encoded(b"me:pw")}

    asyncio.run(scenario())


@pytest.mark.parametrize("proxy", ["socks5://me:secret@127.0.0.1:1080", "127.0.0.1:3128"])
@pytest.mark.parametrize("user", [{"token": "t"}, {"username": "me", "password": "pw"}])
def test_a_proxy_that_can_not_be_used_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str, user: dict[str, str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write(tmp_path, build_config({"proxy-url": proxy}, user))))
    with pytest.raises(ConfigurationError, match=r"proxy-url is none that begins with http:// or https://") as refused:
        asyncio.run(ClusterAccess.load())
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "a: b: c", "{}"])
def test_an_unusable_file_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))

    async def scenario() -> None:
        with pytest.raises(ConfigurationError, match="No usable Kubernetes configuration"):
            await ClusterAccess.load()

    asyncio.run(scenario())


def test_where_the_kubernetes_package_is_not_installed_a_sentence_says_what_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are made without it."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.setitem(sys.modules, "kubernetes.aio", None)
    monkeypatch.delitem(sys.modules, "kubechain_common.kube.library_access", raising=False)
    with pytest.raises(ConfigurationError, match="missing, or not one plain kubeconfig with a token or a client"):
        asyncio.run(ClusterAccess.load())


def test_a_pod_has_a_service_account(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "ca.crt").write_bytes(pair.certificate)
    (tmp_path / "token").write_text("pod")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    connection = connect_by_service_account(environ, tmp_path)
    assert (connection.host, connection.authorization) == ("https://[fd00::1]:443", "Bearer pod")
    assert connection.renew is not None
    (tmp_path / "token").write_text("")
    with pytest.raises(ConfigurationError, match="is empty"):
        asyncio.run(_await(connection.renew()))


async def _await(awaitable: Any) -> Any:
    return await awaitable


def test_a_plain_start_does_without_the_kubernetes_package(tmp_path: Path) -> None:
    """Its import is what a start would wait for longest."""
    program = (
        "import asyncio, sys\n"
        "from kubechain_common.kube.client import KubeClient\n"
        "async def main():\n"
        "    async with KubeClient.connect('test') as kube: return kube.host\n"
        f"assert asyncio.run(main()) == {SERVER!r}\n"
        "assert 'kubernetes' not in sys.modules\n"
    )
    path = write(tmp_path, build_config())

    async def scenario() -> int:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env={"KUBECONFIG": str(path)})
        return await process.wait()

    assert asyncio.run(scenario()) == 0
