"""Keys, tokens and the kubeconfig: all that a client needs to trust and be known, in files that are private."""

from __future__ import annotations

import base64
import csv
import json
import re
import ssl
import stat
from pathlib import Path

from kubechain_cli.localcluster.certificates import ensure_pki
from kubechain_cli.localcluster.kubeconfig import write_kubeconfig
from kubechain_cli.localcluster.tokens import administrator, ensure_tokens, read_token, service_account
from kubechain_common.testing.tls import handshake


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_server_is_trusted_for_this_machine(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.serving_cert, pki.serving_key)
    assert handshake(server, ssl.create_default_context(cafile=str(pki.ca_cert)), "127.0.0.1") == "TLSv1.3"


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path)
    before = pki.ca_cert.read_bytes()
    ensure_pki(tmp_path)
    assert pki.ca_cert.read_bytes() == before
    assert {mode_of(path) for path in tmp_path.iterdir()} == {0o600}
    pki.serving_key.unlink()
    ensure_pki(tmp_path)
    assert pki.ca_cert.read_bytes() != before


ADMIN, OTHER = administrator("admin"), service_account("kubechain-system", "mcp-host")


def test_each_identity_has_a_token_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    ensure_tokens(file, (ADMIN, OTHER))
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines))
    account = "system:serviceaccount:kubechain-system:mcp-host"
    assert [row[1:] for row in rows] == [
        ["kubechain:admin", "kubechain:admin", "system:masters"],
        [account, account, "system:serviceaccounts,system:serviceaccounts:kubechain-system"],
    ]
    tokens = [read_token(file, identity) for identity in (ADMIN, OTHER)]
    assert [row[0] for row in rows] == tokens
    assert len(set(tokens)) == 2
    # 256 bits in base64, and nothing that a header or a CSV file would have to quote.
    assert all(re.fullmatch("[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_tokens_are_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    ensure_tokens(file, (ADMIN,))
    token = read_token(file, ADMIN)
    ensure_tokens(file, (ADMIN,))
    assert read_token(file, ADMIN) == token
    assert mode_of(file) == 0o600
    ensure_tokens(file, (ADMIN, OTHER))
    assert read_token(file, ADMIN) == token != read_token(file, OTHER)


def test_the_kubeconfig_carries_everything(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path)
    ensure_tokens(pki.tokens, (ADMIN,))
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, "https://127.0.0.1:1", pki, ADMIN)
    config = json.loads(path.read_text())
    cluster = config["clusters"][0]["cluster"]
    assert cluster["server"] == "https://127.0.0.1:1"
    assert base64.b64decode(cluster["certificate-authority-data"]) == pki.ca_cert.read_bytes()
    assert config["users"] == [{"name": "kubechain:admin", "user": {"token": read_token(pki.tokens, ADMIN)}}]
    assert mode_of(path) == 0o600
