"""What is made at an install, and what is kept."""

from __future__ import annotations

import itertools
import ssl
from pathlib import Path

import pytest

from kubechain_common.messages.permissions import USERS
from kubechain_common.policies.rbac.rights import MADE_SECRETS
from kubechain_common.runtime.bootstrap import decide_secrets, password_secret, server_names
from kubechain_common.runtime.certificates import build_server_certificate
from kubechain_common.testing.tls import handshake

CERTIFICATE = {"ca.crt": "ca", "tls.crt": "certificate", "tls.key": "key"}


def decide(existing: dict[str, dict[str, str]], *, tls: bool = True) -> dict[str, dict[str, str]]:
    numbers = itertools.count(1)
    return decide_secrets(existing, lambda: f"new-{next(numbers)}", (lambda: CERTIFICATE) if tls else None)


def test_everything_is_made_at_first_and_no_more_than_the_job_may_write() -> None:
    made = decide({})
    assert set(made) == set(MADE_SECRETS)
    passwords = [made[password_secret(user)]["password"] for user in USERS]
    assert len(set(passwords)) == len(USERS)
    assert all(f'"{password}"' in made["nats-users"]["passwords.conf"] for password in passwords)
    assert made["nats-ca"] == {"ca.crt": "ca"}, "who checks the server gets no key"


def test_without_tls_there_are_passwords_only() -> None:
    assert set(decide({}, tls=False)) == {*map(password_secret, USERS), "nats-users"}


def test_a_second_run_changes_nothing() -> None:
    assert decide(decide({})) == {}


@pytest.mark.parametrize("lost", MADE_SECRETS)
def test_what_was_deleted_is_made_anew_and_the_rest_follows(lost: str) -> None:
    existing = decide({})
    del existing[lost]
    changed = decide(existing)
    assert lost in changed
    assert set(changed) <= {lost, "nats-users"}, "no other password changes, and an authority is made once"
    assert decide(existing | changed) == {}


def test_an_empty_secret_is_filled() -> None:
    assert set(decide(decide({}) | {"nats-mcp-host": {}})) == {"nats-mcp-host", "nats-users"}


def test_another_certificate_comes_with_its_own_authority() -> None:
    existing = decide({}) | {"nats-ca": {"ca.crt": "of an older one"}}
    assert decide(existing) == {"nats-ca": {"ca.crt": "ca"}}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("nats", True),
        ("nats.kubechain-system.svc", True),
        ("nats-2.nats-headless.kubechain-system.svc.cluster.local", True),
        ("localhost", True),
        ("postgres.kubechain-system.svc", False),
    ],
)
def test_the_certificate_is_good_for_the_servers_alone(tmp_path: Path, name: str, known: bool) -> None:
    for file, text in build_server_certificate(server_names("kubechain-system")).items():
        (tmp_path / file).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    if known:
        assert handshake(context, client, name) == "TLSv1.3"
    else:
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(context, client, name)
