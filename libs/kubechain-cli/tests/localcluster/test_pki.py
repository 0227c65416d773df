"""Keys and the kubeconfig: a client that trusts nothing else can talk to the server, and the files are private."""

from __future__ import annotations

import base64
import json
import ssl
import stat
from pathlib import Path
from typing import Any

from cryptography import x509

from kubechain_cli.localcluster.certificates import ensure_pki
from kubechain_cli.localcluster.kubeconfig import write_kubeconfig


def test_the_server_is_trusted_for_this_machine(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path, ("admin",))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.serving_cert, pki.serving_key)
    server.load_verify_locations(pki.ca_cert)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(pki.ca_cert))
    client.load_cert_chain(pki.client_cert("admin"), pki.client_key("admin"))
    subject = handshake(server, client)
    assert subject == {"commonName": "kubechain:admin", "organizationName": "system:masters"}


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[Any, Any]:
    """TLS in memory; returns the subject that the server saw."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for side in (client_side, server_side, client_side, server_side):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    certificate: Any = server_side.getpeercert()
    return dict(pair for part in certificate["subject"] for pair in part)


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path, ("admin",))
    before = pki.ca_cert.read_bytes()
    ensure_pki(tmp_path, ("admin",))
    assert pki.ca_cert.read_bytes() == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    pki.client_key("admin").unlink()
    ensure_pki(tmp_path, ("admin",))
    assert pki.ca_cert.read_bytes() != before


def test_the_kubeconfig_carries_everything(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path, ("admin",))
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, "https://127.0.0.1:1", pki, "admin")
    config = json.loads(path.read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    certificate = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
    assert x509.load_pem_x509_certificate(certificate).subject.rfc4514_string() == "CN=kubechain:admin,O=system:masters"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
