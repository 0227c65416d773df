"""The kubeconfig of the local cluster. CA and token are embedded, so the file can be copied anywhere."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from kubechain_cli.localcluster.files import write_atomic
from kubechain_cli.localcluster.pki import Pki
from kubechain_cli.localcluster.tokens import Identity, read_token

CONTEXT = "kubechain"


def build_kubeconfig(server: str, pki: Pki, identity: Identity) -> str:
    """The text of a kubeconfig for one identity that has a token (JSON, which is YAML)."""
    authority = base64.b64encode(pki.ca_cert.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": identity.user, "user": {"token": read_token(pki.tokens, identity)}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": identity.user, "namespace": "default"}}],
        "current-context": CONTEXT,
    }
    return json.dumps(config, indent=2) + "\n"


def write_kubeconfig(path: Path, server: str, pki: Pki, identity: Identity) -> None:
    """Write the file readable by its owner alone."""
    write_atomic(path, build_kubeconfig(server, pki, identity), mode=0o600)
