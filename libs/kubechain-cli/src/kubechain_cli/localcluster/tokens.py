"""How the local cluster's own users sign in: a bearer token each, in a file that the API server reads when it starts.

It finds a token in a map, while a client certificate has to be verified anew for every request. A service signs in
under the very name that its ServiceAccount would have, and so has the rights that are bound to that, and no others.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file
"""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubechain_cli.localcluster.files import write_atomic

ADMIN_GROUP = "system:masters"
_COLUMNS = ("token", "user", "uid", "groups")
_TOKEN_BYTES = 32


@dataclass(frozen=True)
class Identity:
    """A user of the local API server."""

    user: str
    groups: tuple[str, ...]


def administrator(name: str) -> Identity:
    """The user ``kubechain:<name>``, who may do everything."""
    return Identity(f"kubechain:{name}", (ADMIN_GROUP,))


def service_account(namespace: str, name: str) -> Identity:
    """https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/"""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return Identity(f"system:serviceaccount:{namespace}:{name}", groups)


def ensure_tokens(file: Path, identities: Sequence[Identity]) -> None:
    """Make a token for each identity that has none yet; the file is mode 600."""
    known = _read(file) if file.is_file() else {}
    if all(identity.user in known for identity in identities):
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        (known.get(i.user) or secrets.token_urlsafe(_TOKEN_BYTES), i.user, i.user, ",".join(i.groups))
        for i in identities
    )
    write_atomic(file, text.getvalue())


def read_token(file: Path, identity: Identity) -> str:
    """The token of an identity that ``ensure_tokens`` was told of."""
    return _read(file)[identity.user]


def _read(file: Path) -> dict[str, str]:
    with file.open(newline="") as lines:
        return {row["user"]: row["token"] for row in csv.DictReader(lines, _COLUMNS)}
