"""How the local cluster's own users sign in: a bearer token each, in a file that the API server reads when it starts.

It finds a token in a map, while a client certificate has to be verified anew for every request.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file
"""

from __future__ import annotations

import csv
import io
import secrets
from pathlib import Path

from kubechain_cli.localcluster.files import write_atomic

ADMIN_GROUP = "system:masters"
_COLUMNS = ("token", "user", "uid", "groups")
_TOKEN_BYTES = 32


def ensure_tokens(file: Path, identities: tuple[str, ...]) -> None:
    """Make a token for each identity unless the file already holds them; the file is mode 600.

    Each identity is a cluster administrator: the user `kubechain:<identity>` in the group system:masters.
    """
    users = [_user(identity) for identity in identities]
    if file.is_file() and set(users) <= _read(file).keys():
        return
    text = io.StringIO()
    rows = ((secrets.token_urlsafe(_TOKEN_BYTES), user, user, ADMIN_GROUP) for user in users)
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomic(file, text.getvalue())


def read_token(file: Path, identity: str) -> str:
    """The token of an identity that `ensure_tokens` was told of."""
    return _read(file)[_user(identity)]


def _read(file: Path) -> dict[str, str]:
    with file.open(newline="") as lines:
        return {row["user"]: row["token"] for row in csv.DictReader(lines, _COLUMNS)}


def _user(identity: str) -> str:
    return f"kubechain:{identity}"
