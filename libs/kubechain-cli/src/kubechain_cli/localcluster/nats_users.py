"""Who the services are to the local NATS: the users and permissions that a deployment has, with passwords of our own.

Whoever signs in as nobody may do everything, as on any broker on 127.0.0.1: the ``kubechain`` command does, and so do
scripts and tests.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from kubechain_cli.localcluster.files import write_atomic
from kubechain_cli.localcluster.layout import Layout

ANYBODY = "anybody"
_PASSWORD_BYTES = 32


def password_file(layout: Layout, service: str) -> Path:
    return layout.pki / f"{service}.nats-password"


def build_users_config(layout: Layout) -> str:
    """The users, as a part of the server's configuration. Makes the passwords that are missing; it is secret."""
    from kubechain_common.messages import nats_config
    from kubechain_common.messages.permissions import USERS

    passwords = {user: _ensure_password(password_file(layout, user)) for user in USERS}
    anybody = nats_config.build_unbound_user(ANYBODY, secrets.token_urlsafe(_PASSWORD_BYTES))
    users = nats_config.build_users_config(nats_config.build_passwords_config(passwords), anybody)
    return f"no_auth_user: {ANYBODY}\n{users}"


def _ensure_password(file: Path) -> str:
    if not file.is_file():
        write_atomic(file, secrets.token_urlsafe(_PASSWORD_BYTES))
    return file.read_text(encoding="utf-8")
